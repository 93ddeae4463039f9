//! The decision log: complete, chained, paged.

use public_api::decision_log::{self, Decision};
use serde_json::{Value, json};

use crate::support::issuer::attestation;
use crate::support::vault::{Vault, platform_conditions};

#[tokio::test]
async fn a_keys_life_is_on_record_in_one_chain() {
    let vault = Vault::new().await;
    let created = vault.exportable("platform", platform_conditions()).await;
    let token = attestation().token(&vault.evidence(0));
    vault.release("/keys/platform/release", &token).await.ok();
    vault.release("/keys/platform/release", &token).await;
    vault.officer("PATCH", "/keys/platform", &json!({"tags": {"a": "b"}})).await.ok();
    vault.officer("DELETE", "/keys/platform", &Value::Null).await.ok();
    vault.officer("POST", "/deletedkeys/platform/recover", &Value::Null).await.ok();
    let vault = vault.restart().await;
    vault.officer("DELETE", "/keys/platform", &Value::Null).await.ok();
    let log = vault.log().await;
    assert_eq!(decision_log::verify(None, &log), Ok(7));
    let operations: Vec<_> =
        log.iter().map(|entry| (entry.decision, entry.detail["operation"].as_str().unwrap())).collect();
    assert_eq!(
        operations,
        [
            (Decision::KeyChanged, "create"),
            (Decision::Released, "release"),
            (Decision::Refused, "release"),
            (Decision::KeyChanged, "update"),
            (Decision::KeyChanged, "delete"),
            (Decision::KeyChanged, "recover"),
            (Decision::KeyChanged, "delete"),
        ]
    );
    assert!(log.iter().all(|entry| json!(entry.subject) == created["key"]["kid"]));
    let release = &log[1].detail;
    for (name, value) in [
        ("caller", "app-1"),
        ("enc", "CKM_RSA_AES_KEY_WRAP"),
        ("issuer", "https://attest.casemate.test"),
        ("trustRoot", "development"),
        ("wrappedTo", "HCLTransferKey"),
    ] {
        assert_eq!(release[name], value);
    }
    assert_eq!(release["generation"], 0);
    assert_eq!(log[0].time, "2027-01-15T08:00:00Z");
}

#[tokio::test]
async fn the_log_is_read_from_a_number_on() {
    let vault = Vault::new().await;
    for number in 0..5 {
        vault.officer("POST", &format!("/keys/k{number}/create"), &json!({"kty": "RSA"})).await.ok();
    }
    let tail = vault.get("/log?after=3").await.ok();
    let sequences: Vec<_> = tail.as_array().unwrap().iter().map(|entry| entry["sequence"].clone()).collect();
    assert_eq!(sequences, [4, 5]);
    assert_eq!(vault.get("/log?after=99").await.ok(), json!([]));
    assert_eq!(vault.get(&format!("/log?after={}", u64::MAX)).await.ok(), json!([]));
    assert_eq!(vault.get("/log").await.ok().as_array().unwrap().len(), 5);
    let answer = vault.get("/log?after=x").await;
    assert_eq!((answer.code(), answer.target()), ("BadParameter", "after"));
}
