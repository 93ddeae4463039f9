//! The signed table of minimum patch levels: who may sign it, what it refuses, and that it never goes back.

use std::process::Command;
use std::sync::LazyLock;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::*;

/// A key that the tests' services pin, and one that they do not.
static SIGNER: LazyLock<rcgen::KeyPair> = LazyLock::new(|| key(&rcgen::PKCS_ECDSA_P384_SHA384));
static STRANGER: LazyLock<rcgen::KeyPair> = LazyLock::new(|| key(&rcgen::PKCS_ECDSA_P384_SHA384));

pub fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> rcgen::KeyPair {
    rcgen::KeyPair::generate_for(algorithm).expect("a key")
}

pub fn table(sequence: u64, minimum: &Value) -> Value {
    json!({
        "document": "minimum-tcb", "sequence": sequence, "issuedOn": "2025-06-01T00:00:00Z",
        "products": {"Milan": [{
            "bulletin": "AMD-SB-0000", "date": "2025-05-13", "link": "https://bulletins.example/AMD-SB-0000",
            "minimum": minimum,
        }]},
    })
}

/// The table, signed by the program.
pub fn signed(table: &Value, key: &rcgen::KeyPair) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let (table_path, key_path) = (directory.path().join("t.json"), directory.path().join("k.pem"));
    std::fs::write(&table_path, table.to_string()).expect("written");
    std::fs::write(&key_path, key.serialize_pem()).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-attestation"));
    command.arg("sign-minimum-tcb").arg("--table").arg(table_path).arg("--key").arg(key_path);
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text")
}

async fn lab() -> Lab {
    lab_with(&SIGNER.public_key_pem()).await
}

async fn lab_with(signers: &str) -> Lab {
    Lab::with(|config| {
        let path = config.data_dir.with_file_name("signers.pem");
        std::fs::write(&path, signers).expect("written");
        config.minimum_tcb_signers.push(path);
    })
    .await
}

async fn put(lab: &Lab, jws: &str) -> (StatusCode, Value) {
    lab.put("/minimumTcb", jws, ADMIN_TOKEN).await
}

async fn refused(lab: &Lab, jws: &str, code: &str) {
    let (status, answer) = put(lab, jws).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert_eq!(answer["error"]["denial"]["code"], code, "{answer}");
    let log = lab.service.store.entries_after(0).await.expect("the log");
    assert_eq!(log.last().and_then(|entry| entry.denial.as_ref()).expect("a denial").code, code);
}

#[tokio::test]
async fn reported_and_committed_levels_must_reach_the_table_whatever_the_policy_says() {
    let lab = lab().await;
    let text = public_api::encoding::to_base64url(b"version=1.0; authorizationrules { => permit(); };");
    let payload = json!({"AttestationPolicy": text}).to_string();
    let policy = format!("eyJhbGciOiJub25lIn0.{}.", public_api::encoding::to_base64url(payload.as_bytes()));
    assert_eq!(lab.put("/policies/SevSnpVm", &policy, ADMIN_TOKEN).await.0, StatusCode::OK);
    let (status, answer) = put(&lab, &signed(&table(1, &json!({"snp": 24})), &SIGNER)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    lab.accepted(&Attempt::honest().body()).await;
    assert_eq!(put(&lab, &signed(&table(2, &json!({"snp": 25})), &SIGNER)).await.0, StatusCode::OK);
    let denial = lab.denied_with(&Attempt::honest().body(), "TcbBelowMinimum").await;
    assert_eq!(denial["claim"], "x-casemate-reported-tcb");
    assert_eq!(
        denial["expected"],
        "snp 25 or higher in the reported TCB, as AMD-SB-0000 of 2025-05-13 demands"
    );
    assert_eq!(denial["actual"], "snp 24");
    assert_eq!(
        denial["rule"],
        "AMD-SB-0000 of 2025-05-13 (https://bulletins.example/AMD-SB-0000), in table 2 of minimum patch levels, issued on 2025-06-01T00:00:00Z"
    );
    assert_eq!(put(&lab, &signed(&table(3, &json!({"microcode": 219})), &SIGNER)).await.0, StatusCode::OK);
    let uncommitted = Attempt::with(|report| {
        let older = snp::TcbVersion { microcode: 218, ..TCB };
        report.committed_tcb = older.encode(snp::Product::Milan);
    });
    // No firmware reports a level that is not committed: such a report does not get as far as the table.
    let denial = lab.denied_with(&uncommitted.body(), "TcbOrderImpossible").await;
    assert_eq!(
        (&denial["expected"], &denial["actual"]),
        (&json!("at most 218, as in committed_tcb"), &json!("219"))
    );
}

#[tokio::test]
async fn an_older_table_never_replaces_a_newer_one_not_even_after_a_restart() {
    let lab = lab().await;
    let (old, new) = (table(7, &json!({"snp": 1})), table(8, &json!({"snp": 25})));
    let (old, new) = (signed(&old, &SIGNER), signed(&new, &SIGNER));
    assert_eq!(put(&lab, &old).await.0, StatusCode::OK);
    assert_eq!(put(&lab, &new).await.0, StatusCode::OK);
    refused(&lab, &old, "MinimumTcbOlder").await;
    let other = signed(&table(8, &json!({"snp": 1})), &SIGNER);
    refused(&lab, &other, "MinimumTcbOlder").await;
    assert_eq!(put(&lab, &new).await.0, StatusCode::OK, "the same again changes nothing");
    let mut lab = lab.restarted().await;
    refused(&lab, &old, "MinimumTcbOlder").await;
    lab.denied_with(&Attempt::honest().body(), "TcbBelowMinimum").await;

    let path = lab.directory.path().join("table.jws");
    std::fs::write(&path, &old).expect("written");
    lab.config.minimum_tcb_table = Some(path.clone());
    let lab = lab.restarted().await;
    assert_eq!(lab.get("/minimumTcb").await.1["table"]["sequence"], 8, "an older file changes nothing");
    std::fs::write(&path, signed(&table(9, &json!({"snp": 2})), &SIGNER)).expect("written");
    let lab = lab.restarted().await;
    assert_eq!(lab.get("/minimumTcb").await.1["table"]["sequence"], 9);
    lab.accepted(&Attempt::honest().body()).await;
}

#[tokio::test]
async fn only_a_pinned_key_signs_tables() {
    let good = table(1, &json!({"snp": 1}));
    let jws = signed(&good, &SIGNER);
    refused(&Lab::new().await, &jws, "DocumentSignerUnknown").await;
    let lab = lab().await;
    refused(&lab, &signed(&good, &STRANGER), "DocumentSignerUnknown").await;
    let mut parts: Vec<&str> = jws.trim().split('.').collect();
    let other = public_api::encoding::to_base64url(table(2, &json!({"snp": 1})).to_string().as_bytes());
    parts[1] = &other;
    refused(&lab, &parts.join("."), "DocumentSignerUnknown").await;
    let unsigned = format!("eyJhbGciOiJub25lIn0.{other}.");
    refused(&lab, &unsigned, "DocumentUnreadable").await;
    refused(&lab, "nonsense", "DocumentUnreadable").await;
    assert_eq!(lab.put("/minimumTcb", &jws, LOG_TOKEN).await.0, StatusCode::FORBIDDEN);
    assert_eq!(lab.get("/minimumTcb").await.1["table"], Value::Null);
}

#[tokio::test]
async fn certificates_and_other_kinds_of_keys_can_be_pinned() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256]
    {
        let key = key(algorithm);
        let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate").pem();
        for signers in [certificate, key.public_key_pem()] {
            let lab = lab_with(&signers).await;
            let (status, answer) = put(&lab, &signed(&table(1, &json!({"snp": 1})), &key)).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
        }
    }
}

#[tokio::test]
async fn a_table_of_another_form_is_refused() {
    let lab = lab().await;
    let sign = |table: &Value| {
        let pem = SIGNER.serialize_pem();
        attestation_service::app::signed_document::sign(table, pem.as_bytes()).expect("signed")
    };
    let good = table(1, &json!({"snp": 1}));
    let cases = [
        ("/document", json!("reference-values"), "MinimumTcbMalformed"),
        ("/issuedOn", json!("yesterday"), "MinimumTcbMalformed"),
        ("/issuedOn", json!("2999-01-01T00:00:00Z"), "MinimumTcbMalformed"),
        ("/products/Milan/0/date", json!("May"), "MinimumTcbMalformed"),
        ("/products/Milan/0/minimum", json!({"fmc": 1}), "MinimumTcbMalformed"),
        ("/products/Milan/0/minimum", json!({"snpfw": 1}), "DocumentUnreadable"),
        ("/products", json!({"Rome": []}), "MinimumTcbMalformed"),
        ("/sequence", json!(-1), "DocumentUnreadable"),
    ];
    for (place, value, code) in cases {
        let mut wrong = good.clone();
        *wrong.pointer_mut(place).expect("there") = value;
        refused(&lab, &sign(&wrong), code).await;
    }
}

#[tokio::test]
async fn a_dry_run_tells_whom_a_raise_would_refuse_and_changes_nothing() {
    let lab = lab().await;
    lab.accepted(&Attempt::honest().body()).await;
    let raise = table(1, &json!({"snp": 25}));
    let path = "/minimumTcb:dryRun";
    assert_eq!(lab.post(path, raise.to_string()).await.0, StatusCode::UNAUTHORIZED);
    let chip = hex::encode(OURS.authority.chip_id());
    for body in [raise.to_string(), signed(&raise, &SIGNER)] {
        let (status, answer) = lab.post_as(path, &body, LOG_TOKEN).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!((&answer["evaluated"], &answer["permitted"]), (&json!(1), &json!(0)));
        assert_eq!(answer["refusedChips"][&chip], json!([VM_ID]));
        assert_eq!(answer["refused"][0]["denial"]["code"], "TcbBelowMinimum");
        assert_eq!(answer["refusedIdleChips"], json!([]));
    }
    let (_, answer) = lab.post_as(path, &table(1, &json!({"snp": 24})).to_string(), LOG_TOKEN).await;
    assert_eq!((&answer["evaluated"], &answer["permitted"]), (&json!(1), &json!(1)));
    lab.accepted(&Attempt::honest().body()).await;
    assert_eq!(lab.get("/minimumTcb").await.1["table"], Value::Null);
}
