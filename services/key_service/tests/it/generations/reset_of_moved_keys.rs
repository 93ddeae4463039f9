//! Resets of guest states that were moved from key to key.

use axum::http::StatusCode;
use serde_json::json;

use super::reset::{listed, not_reset, only, reset};
use super::{accepted, vault_with_key};
use crate::support::issuer::attestation;
use crate::support::vault::{Answer, RELEASE_USER, Vault, platform_conditions};

/// `platform` has let `new` follow, and the state has moved; `third` has released the same VM's state on its own.
async fn moved() -> (Vault, String) {
    let vault = vault_with_key().await;
    for name in ["new", "third"] {
        vault.exportable(name, platform_conditions()).await;
    }
    let new = vault.get("/keys/new").await.ok()["key"]["kid"].as_str().unwrap().to_owned();
    vault.officer("PATCH", "/keys/platform", &json!({"tags": {"casemate-successor": new}})).await.ok();
    for generation in 0..=4 {
        accepted(&vault, generation).await;
    }
    for generation in 0..=4 {
        at(&vault, "third", generation).await.ok();
    }
    let body = json!({"target": attestation().token(&vault.evidence(4)), "nonce": "n", "successor": new});
    let caller = vault.caller(&[RELEASE_USER]);
    vault.send("POST", "/keys/platform/release", Some(&caller), body.to_string()).await.ok();
    (vault, new)
}

async fn at(vault: &Vault, name: &str, generation: u64) -> Answer {
    let token = attestation().token(&vault.evidence(generation));
    vault.release(&format!("/keys/{name}/release"), &token).await
}

#[tokio::test]
async fn a_state_that_has_moved_to_another_key_is_put_back_under_both() {
    let (vault, _) = moved().await;
    at(&vault, "new", 5).await.ok();
    let answer = reset(&vault, "new", 5, 2).await.ok();
    assert_eq!(answer["keys"], json!(["new", "platform"]));
    assert_eq!(vault.log().await.last().unwrap().detail["keys"], json!(["new", "platform"]));
    for name in ["platform", "new"] {
        assert_eq!(at(&vault, name, 1).await.denial()["code"], "RollbackRefused", "{name}");
        assert_eq!(at(&vault, name, 4).await.denial()["code"], "GenerationAhead", "{name}");
    }
    assert_eq!(listed(&vault, "third").await, only(4));
    // The state of before the move is under the old key; what is released from now on counts for both again.
    at(&vault, "platform", 2).await.ok();
    at(&vault, "platform", 3).await.ok();
    assert_eq!(listed(&vault, "new").await, only(3));
    assert_eq!(at(&vault, "new", 2).await.denial()["code"], "RollbackRefused");
}

/// The reset under one name takes effect for a key that the caller did not name: it must be as current there.
#[tokio::test]
async fn a_stale_reset_under_the_name_that_the_state_has_left() {
    let (vault, new) = moved().await;
    at(&vault, "new", 5).await.ok();
    let answer = reset(&vault, "platform", 4, 2).await;
    not_reset(&vault, &answer, (StatusCode::CONFLICT, "GenerationMoved", "from")).await;
    let answer = reset(&vault, "third", 4, 2).await.ok();
    assert_eq!(answer["keys"], json!(["third"]), "a key of its own");
    assert_eq!(listed(&vault, "new").await, only(5));
    // Back under the first name, and moved again.
    reset(&vault, "platform", 5, 4).await.ok();
    let body = json!({"target": attestation().token(&vault.evidence(4)), "nonce": "n", "successor": new});
    let caller = vault.caller(&[RELEASE_USER]);
    vault.send("POST", "/keys/platform/release", Some(&caller), body.to_string()).await.ok();
    at(&vault, "new", 5).await.ok();
}
