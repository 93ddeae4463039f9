//! Reference values: many vCPUs, two builds during an upgrade, and documents that services exchange.

use std::path::PathBuf;

use attestation_service::config::FirmwareConfig;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::*;

/// A second build beside [`BUILD`], with another paravisor.
fn second(directory: &tempfile::TempDir) -> FirmwareConfig {
    let paravisor = directory.path().join("paravisor");
    std::fs::write(&paravisor, b"a newer paravisor").expect("written");
    FirmwareConfig { name: "second".to_owned(), paravisor, ..BUILD.config() }
}

fn launched(measurement: [u8; 48]) -> Value {
    Attempt::with(|report| report.measurement = measurement).body()
}

#[tokio::test]
async fn sizes_of_96_and_of_512_vcpus_have_reference_values() {
    let lab = Lab::with(|config| config.firmware[0].vcpus = vec![96, 512]).await;
    for vcpus in [96, 512] {
        let measurement = BUILD.measurement("EPYC-Milan", vcpus, Some(b"a paravisor"));
        let claims = lab.accepted(&launched(measurement)).await;
        assert_eq!(claims["x-casemate-reference"], format!("ovmf-test/paravisor-test/EPYC-Milan/{vcpus}"));
    }
    let denial = lab.denied(&launched(BUILD.measurement("EPYC-Milan", 97, Some(b"a paravisor")))).await;
    assert!(denial["actual"].as_str().expect("a text").contains("and 97 vCPUs)"), "{denial}");
}

#[tokio::test]
async fn both_builds_hold_during_an_upgrade_and_the_older_one_ends_at_its_date() {
    let directory = tempfile::tempdir().expect("a directory");
    let build = second(&directory);
    let until = |time: &str| Some(time.to_owned());
    let newer = BUILD.measurement("EPYC-Milan", 2, Some(b"a newer paravisor"));
    let lab = Lab::with(|config| {
        config.firmware[0].until = until("2999-01-01T00:00:00Z");
        config.firmware.push(build.clone());
    })
    .await;
    lab.accepted(&Attempt::honest().body()).await;
    lab.accepted(&launched(newer)).await;
    let lab = Lab::with(|config| {
        config.firmware[0].until = until("2024-01-01T00:00:00Z");
        config.firmware.push(build);
    })
    .await;
    lab.accepted(&launched(newer)).await;
    let denial = lab.denied_with(&Attempt::honest().body(), "LaunchMeasurementExpired").await;
    let actual = denial["actual"].as_str().expect("a text");
    assert!(actual.ends_with("accepted until 2024-01-01T00:00:00Z"), "{denial}");
}

#[tokio::test]
async fn a_mismatch_names_the_input_that_differs() {
    let directory = tempfile::tempdir().expect("a directory");
    let build = second(&directory);
    std::fs::write(directory.path().join("firmware"), vec![8; 8192]).expect("written");
    let firmware = directory.path().join("firmware");
    let lab = Lab::with(|config| config.firmware.push(FirmwareConfig { firmware, ..build })).await;
    let mixed = BUILD.measurement("EPYC-Milan", 2, Some(b"a newer paravisor"));
    let denial = lab.denied_with(&launched(mixed), "LaunchMeasurementUnknown").await;
    let expected =
        "(ovmf-test/paravisor-test with CPU model EPYC-Milan and 2 vCPUs and the paravisor of second)";
    assert!(denial["actual"].as_str().expect("a text").ends_with(expected), "{denial}");
}

/// A service that has no build, and pins whoever signs for [`Lab::new`].
async fn reader(signers: &str) -> Lab {
    Lab::with(|config| {
        let path: PathBuf = config.data_dir.with_file_name("signers.json");
        std::fs::write(&path, signers).expect("written");
        config.reference_signers.push(path);
        config.firmware.clear();
    })
    .await
}

pub async fn exported(lab: &Lab) -> String {
    let request = axum::http::Request::get("/referenceValues").body(axum::body::Body::empty());
    let app = attestation_service::http::app(std::sync::Arc::clone(&lab.service));
    let response = tower::ServiceExt::oneshot(app, request.expect("a request")).await.expect("an answer");
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    String::from_utf8(bytes.to_vec()).expect("a text")
}

#[tokio::test]
async fn values_of_one_service_are_accepted_by_another_that_pins_its_key() {
    let source = Lab::new().await;
    let pcrs = json!({"4": "04".repeat(32), "7": "07".repeat(32)});
    let chain = json!({"loader": "grub", "entry": "Debian", "version": "6.12.1", "pcrs": pcrs});
    source
        .put("/bootReferences", &json!({"name": "an-image", "bootChain": chain}).to_string(), ADMIN_TOKEN)
        .await;
    let (document, (_, keys)) = (exported(&source).await, source.get("/certs").await);
    let values = payload(&document);
    assert_eq!((&values["document"], &values["iss"]), (&json!("reference-values"), &json!(ISSUER)));
    assert_eq!(values["values"].as_array().expect("values").len(), 6);
    assert_eq!(values["values"][0]["inputs"]["cpuModel"], "EPYC-Milan");
    let lab = reader(&keys.to_string()).await;
    lab.denied_with(&Attempt::honest().body(), "LaunchMeasurementUnknown").await;
    let path = "/referenceValues";
    assert_eq!(lab.put(path, &document, LOG_TOKEN).await.0, StatusCode::FORBIDDEN);
    let (status, answer) = lab.put(path, &document, ADMIN_TOKEN).await;
    assert_eq!((status, &answer["values"]), (StatusCode::OK, &json!(6)), "{answer}");
    let claims = lab.accepted(&Attempt::honest().body()).await;
    assert_eq!(claims["x-casemate-reference"], "ovmf-test/paravisor-test/EPYC-Milan/2");
    let mut booted = Attempt::honest();
    booted.runtime["boot-chain"] = chain;
    booted.bind();
    assert_eq!(lab.accepted(&booted.body()).await["x-casemate-boot-reference"], "an-image");
    let (provider, now) = (source.service.providers.default_provider(), jiff::Timestamp::now().as_second());
    let newer = source.service.export_references(provider, now + 200).expect("signed");
    assert_eq!(lab.put(path, &newer, ADMIN_TOKEN).await.0, StatusCode::OK);
    let (_, answer) = lab.put(path, &document, ADMIN_TOKEN).await;
    assert_eq!(answer["error"]["denial"]["code"], "ReferenceValuesOlder", "{answer}");
    let later = now + 91 * 86_400;
    let ended = lab.service.import_references(&newer, "a caller", later).await.expect_err("it ended");
    assert!(ended.to_string().starts_with("ReferenceValuesRefused: exp"), "{ended}");
    let lab = lab.restarted().await;
    lab.accepted(&Attempt::honest().body()).await;
}

#[tokio::test]
async fn values_and_tokens_of_a_stranger_are_refused() {
    let (source, stranger) = (Lab::new().await, Lab::new().await);
    let (_, keys) = source.get("/certs").await;
    let lab = reader(&keys.to_string()).await;
    let (_, answer) = source.attest(&Attempt::honest().body()).await;
    let token = answer["token"].as_str().expect("a token").to_owned();
    for (document, code) in
        [(exported(&stranger).await, "DocumentSignerUnknown"), (token, "DocumentUnreadable")]
    {
        let (status, answer) = lab.put("/referenceValues", &document, ADMIN_TOKEN).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(answer["error"]["denial"]["code"], code, "{answer}");
    }
    lab.denied_with(&Attempt::honest().body(), "LaunchMeasurementUnknown").await;
}
