//! Boot chains of known images: named in tokens, asked for by policies, and what differs told in the denial.

use attestation_service::app::provider::document::unsigned_jws;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::*;

const PATH: &str = "/bootReferences";
const REQUIRED: &str = r#"version=1.2; authorizationrules {
    ![type=="x-casemate-boot-reference"] => deny(); => permit(); };"#;

/// The chain of an image; `initramfs` goes into PCR 9.
fn chain(initramfs: u8) -> Value {
    let pcr = |byte: u8| hex::encode([byte; 32]);
    json!({
        "loader": "systemd-boot",
        "entry": "debian.conf",
        "version": "6.12.1",
        "pcrs": {"4": pcr(4), "7": pcr(7), "9": pcr(initramfs), "15": pcr(0)},
    })
}

fn reference(name: &str, chain: &Value) -> Value {
    json!({"name": name, "bootChain": chain})
}

/// Evidence of a paravisor that has sealed to a chain.
fn sealed_to(chain: &Value) -> Attempt {
    let mut attempt = Attempt::honest();
    attempt.runtime["boot-chain"] = chain.clone();
    attempt.bind();
    attempt
}

async fn put(lab: &Lab, reference: &Value) -> (StatusCode, Value) {
    lab.put(PATH, &reference.to_string(), ADMIN_TOKEN).await
}

async fn name(lab: &Lab, attempt: &Attempt) -> Value {
    lab.accepted(&attempt.body()).await["x-casemate-boot-reference"].clone()
}

#[tokio::test]
async fn a_token_names_the_image_whose_boot_chain_was_sealed_to() {
    let lab = Lab::new().await;
    assert_eq!(name(&lab, &sealed_to(&chain(9))).await, Value::Null);
    let wanted = reference("debian-13", &chain(9));
    assert_eq!(put(&lab, &wanted).await, (StatusCode::OK, wanted.clone()));
    assert_eq!(name(&lab, &sealed_to(&chain(9))).await, "debian-13");
    assert_eq!(name(&lab, &sealed_to(&chain(10))).await, Value::Null);
    assert_eq!(name(&lab, &Attempt::honest()).await, Value::Null);
    let lab = lab.restarted().await;
    assert_eq!(name(&lab, &sealed_to(&chain(9))).await, "debian-13");
    assert_eq!(lab.get(PATH).await, (StatusCode::OK, json!([wanted])));
    let remove = |name: &str| json!({"name": name}).to_string();
    let path = format!("{PATH}:remove");
    assert_eq!(lab.post_as(&path, &remove("another"), ADMIN_TOKEN).await.0, StatusCode::NOT_FOUND);
    assert_eq!(lab.post_as(&path, &remove("debian-13"), ADMIN_TOKEN).await.0, StatusCode::NO_CONTENT);
    assert_eq!(name(&lab, &sealed_to(&chain(9))).await, Value::Null);
}

/// What a guest above VMPL 0 writes into its report's data is the guest's word.
#[tokio::test]
async fn a_guest_states_a_boot_chain_in_a_report_of_its_own() {
    let lab = Lab::new().await;
    put(&lab, &reference("debian-13", &chain(9))).await;
    let (status, _) = lab
        .put(
            "/policies/SevSnpVm",
            &unsigned_jws("version=1.0; authorizationrules { => permit(); };"),
            ADMIN_TOKEN,
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    let mut attempt = sealed_to(&chain(9));
    attempt.report.vmpl = 1;
    assert_eq!(name(&lab, &attempt).await, Value::Null);
    let mut unknown = sealed_to(&chain(9));
    unknown.report.measurement = [7; 48];
    assert_eq!(name(&lab, &unknown).await, Value::Null, "an unknown paravisor's word counts for nothing");
}

#[tokio::test]
async fn a_denial_names_what_differs_from_the_nearest_image() {
    let lab = Lab::new().await;
    lab.put("/policies/SevSnpVm", &unsigned_jws(REQUIRED), ADMIN_TOKEN).await;
    let denial = lab.denied_with(&sealed_to(&chain(9)).body(), "BootChainUnknown").await;
    assert_eq!(denial["expected"], "the boot chain of a known image; none is known");
    put(&lab, &reference("debian-13", &chain(9))).await;
    let mut far = chain(1);
    far["pcrs"]["4"] = json!("00".repeat(32));
    put(&lab, &reference("another", &far)).await;
    lab.accepted(&sealed_to(&chain(9)).body()).await;
    let denial = lab.denied_with(&sealed_to(&chain(10)).body(), "BootChainUnknown").await;
    assert_eq!(
        denial["actual"],
        "systemd-boot debian.conf (6.12.1); from debian-13 it differs in PCR 9 (files that the boot loader read: kernel, \
         initramfs, command line)"
    );
    let denial = lab.denied_with(&Attempt::honest().body(), "BootChainUnknown").await;
    assert_eq!(denial["actual"], "the evidence states no boot chain");
    assert_eq!(denial["expected"], "the boot chain of one of another, debian-13");
    for number in 0..7 {
        put(&lab, &reference(&format!("more-{number}"), &far)).await;
    }
    let denial = lab.denied_with(&Attempt::honest().body(), "BootChainUnknown").await;
    let expected = denial["expected"].as_str().expect("a text");
    assert!(expected.ends_with("more-5 and 1 more"), "a catalogue is not told whole: {expected}");
    let mut ended = reference("debian-13", &chain(9));
    ended["until"] = json!("2024-01-01T00:00:00Z");
    put(&lab, &ended).await;
    let denial = lab.denied_with(&sealed_to(&chain(9)).body(), "BootChainUnknown").await;
    assert!(
        denial["actual"]
            .as_str()
            .expect("a text")
            .ends_with("which is debian-13, accepted until 2024-01-01T00:00:00Z"),
        "{denial}"
    );
}

#[tokio::test]
async fn what_is_no_boot_chain_and_whoever_may_not_add_one_is_refused() {
    let lab = Lab::new().await;
    let good = reference("debian-13", &chain(9)).to_string();
    assert_eq!(lab.put(PATH, &good, LOG_TOKEN).await.0, StatusCode::FORBIDDEN);
    assert_eq!(lab.put(PATH, &good, "a stranger's").await.0, StatusCode::UNAUTHORIZED);
    let with = |member: &str, value: Value| {
        let mut changed = reference("debian-13", &chain(9));
        *changed.pointer_mut(member).expect("a member") = value;
        changed
    };
    for wrong in [
        with("/name", json!("a b")),
        with("/name", json!("")),
        with("/bootChain/pcrs", json!({})),
        with("/bootChain/pcrs", json!({"4": "00".repeat(32)})),
        with("/bootChain/pcrs/4", json!("00")),
        with("/bootChain/pcrs", json!({"4": "00".repeat(32), "7": "00".repeat(32), "24": "00".repeat(32)})),
        json!({"name": "n", "bootChain": chain(9), "until": "tomorrow"}),
        json!({"name": "n", "bootChain": chain(9), "more": 1}),
    ] {
        let (status, answer) = put(&lab, &wrong).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}: {answer}");
        assert_eq!(answer["error"]["code"], "InvalidParameter");
    }
    assert_eq!(lab.get(PATH).await.1, json!([]));
}
