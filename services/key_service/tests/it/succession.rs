//! A guest state moves to another key: who may say so, what the answer proves, and that no older state comes back by it.

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use axum::http::StatusCode;
use public_api::keys::succession_statement;
use serde_json::{Value, json};

use crate::support::issuer::{attestation, decoded, sha256_hex, transfer_key};
use crate::support::unwrap::{modulus, released_modulus, verified};
use crate::support::vault::{Answer, RELEASE_USER, VM, Vault, platform_conditions};

const NONCE: &str = "nonce-of-the-vm";

fn kid(bundle: &Value) -> String {
    bundle["key"]["kid"].as_str().unwrap().to_owned()
}

fn path(bundle: &Value) -> String {
    kid(bundle).split_once("/keys/").map(|(_, rest)| format!("/keys/{rest}")).unwrap()
}

async fn present(vault: &Vault, key: &Value, generation: u64, successor: Option<&str>) -> Answer {
    let token = attestation().token(&vault.evidence(generation));
    let mut body = json!({"target": token, "nonce": NONCE});
    if let Some(successor) = successor {
        body["successor"] = successor.into();
    }
    let caller = vault.caller(&[RELEASE_USER]);
    vault.send("POST", &format!("{}/release", path(key)), Some(&caller), body.to_string()).await
}

async fn accepted(vault: &Vault, key: &Value, generation: u64, successor: Option<&str>) -> Value {
    let answer = present(vault, key, generation, successor).await.ok();
    verified(answer["value"].as_str().unwrap()).1
}

async fn refused(vault: &Vault, key: &Value, generation: u64, successor: Option<&str>, code: &str) {
    let answer = present(vault, key, generation, successor).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
    assert_eq!(answer.denial()["code"], code, "{}", answer.body);
}

/// Two keys, the first of which has released generations 0 to 3.
async fn two_keys() -> (Vault, Value, Value) {
    let vault = Vault::new().await;
    let old = vault.exportable("old", platform_conditions()).await;
    let new = vault.exportable("new", platform_conditions()).await;
    for generation in 0..=3 {
        accepted(&vault, &old, generation, None).await;
    }
    (vault, old, new)
}

async fn consent(vault: &Vault, old: &Value, new: &str) {
    let body = json!({"tags": {"casemate-successor": new}});
    vault.officer("PATCH", &path(old), &body).await.ok();
}

/// SubjectPublicKeyInfo of an RSA key.
fn spki(bundle: &Value) -> Vec<u8> {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKeyComponents};
    let number = |name: &str| decoded(bundle["key"][name].as_str().unwrap());
    let (n, e) = (number("n"), number("e"));
    let components = PublicKeyComponents { n: n.as_slice(), e: e.as_slice() };
    let key: PublicEncryptingKey = components.try_into().unwrap();
    let der: PublicKeyX509Der<'_> = key.as_der().unwrap();
    der.as_ref().to_vec()
}

#[tokio::test]
async fn the_released_key_signs_for_the_key_that_its_owner_named() {
    let (vault, old, new) = two_keys().await;
    consent(&vault, &old, &kid(&new)).await;
    let payload = accepted(&vault, &old, 3, Some(&kid(&new))).await;
    assert_eq!(released_modulus(&payload, transfer_key()), modulus(&old));
    let succession = &payload["response"]["succession"];
    assert_eq!(succession["kid"], kid(&new));
    assert_eq!(succession["publicKeyDigest"], sha256_hex(&spki(&new)));
    let digest = succession["publicKeyDigest"].as_str().unwrap();
    let statement = succession_statement(&kid(&old), &kid(&new), digest, NONCE);
    let signature = decoded(succession["signature"].as_str().unwrap());
    let by = |key: &Value| UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, spki(key));
    by(&old).verify(&statement, &signature).unwrap();
    assert!(by(&new).verify(&statement, &signature).is_err());
    let log = vault.log().await;
    assert!(log.iter().any(|entry| entry.detail["successor"] == kid(&new)), "it is on record");
}

#[tokio::test]
async fn a_successor_that_the_owner_did_not_name() {
    let (vault, old, new) = two_keys().await;
    refused(&vault, &old, 3, Some(&kid(&new)), "SuccessorNotNamed").await;
    let third = vault.exportable("third", platform_conditions()).await;
    consent(&vault, &old, &kid(&third)).await;
    refused(&vault, &old, 3, Some(&kid(&new)), "SuccessorNotNamed").await;
    // A refused move moves nothing on: not the old key's generation, not the new key's.
    refused(&vault, &old, 4, Some(&kid(&new)), "SuccessorNotNamed").await;
    accepted(&vault, &old, 3, None).await;
    refused(&vault, &new, 3, None, "GenerationAhead").await;
    assert!(accepted(&vault, &old, 3, None).await["response"].get("succession").is_none());
}

#[tokio::test]
async fn a_consent_that_was_taken_back() {
    let (vault, old, new) = two_keys().await;
    consent(&vault, &old, &kid(&new)).await;
    accepted(&vault, &old, 3, Some(&kid(&new))).await;
    vault.officer("PATCH", &path(&old), &json!({"tags": {}})).await.ok();
    refused(&vault, &old, 3, Some(&kid(&new)), "SuccessorNotNamed").await;
}

#[tokio::test]
async fn a_later_version_may_follow_and_an_older_one_may_not() {
    let vault = Vault::new().await;
    let first = vault.exportable("k", platform_conditions()).await;
    let second = vault.exportable("k", platform_conditions()).await;
    accepted(&vault, &first, 0, Some(&kid(&second))).await;
    accepted(&vault, &second, 1, None).await;
    refused(&vault, &second, 1, Some(&kid(&first)), "SuccessorNotNamed").await;
    refused(&vault, &second, 1, Some(&kid(&second)), "SuccessorNotNamed").await;
}

#[tokio::test]
async fn an_older_state_under_the_old_key_after_the_move() {
    let (vault, old, new) = two_keys().await;
    consent(&vault, &old, &kid(&new)).await;
    accepted(&vault, &old, 3, Some(&kid(&new))).await;
    // Until the new state is written, both keys open what there is.
    accepted(&vault, &new, 3, None).await;
    accepted(&vault, &old, 3, None).await;
    accepted(&vault, &new, 4, None).await;
    refused(&vault, &old, 3, None, "RollbackRefused").await;
    accepted(&vault, &new, 5, None).await;
    refused(&vault, &old, 3, Some(&kid(&new)), "RollbackRefused").await;
    refused(&vault, &new, 4, None, "RollbackRefused").await;
    // And back again: neither key forgets.
    consent(&vault, &new, &kid(&old)).await;
    accepted(&vault, &new, 5, Some(&kid(&old))).await;
    accepted(&vault, &old, 6, None).await;
    refused(&vault, &new, 5, None, "RollbackRefused").await;
    let vault = vault.restart().await;
    refused(&vault, &new, 5, None, "RollbackRefused").await;
    refused(&vault, &old, 5, None, "RollbackRefused").await;
    accepted(&vault, &old, 7, None).await;
}

/// Somebody else's key must not push the generation of a key that it never was moved to.
#[tokio::test]
async fn a_foreign_key_that_names_a_key_with_a_history_of_its_own() {
    let (vault, old, new) = two_keys().await;
    for generation in 0..=1 {
        accepted(&vault, &new, generation, None).await;
    }
    consent(&vault, &old, &kid(&new)).await;
    refused(&vault, &old, 3, Some(&kid(&new)), "SuccessorHasHistory").await;
    accepted(&vault, &new, 1, None).await;
    refused(&vault, &new, 3, None, "GenerationAhead").await;
}

#[tokio::test]
async fn a_disabled_old_key_names_nobody() {
    let (vault, old, new) = two_keys().await;
    consent(&vault, &old, &kid(&new)).await;
    vault.officer("PATCH", &path(&old), &json!({"attributes": {"enabled": false}})).await.ok();
    refused(&vault, &old, 3, Some(&kid(&new)), "KeyDisabled").await;
}

#[tokio::test]
async fn requests_that_name_no_key_of_this_vault() {
    let (vault, old, new) = two_keys().await;
    for successor in
        ["", "new", "https://elsewhere.test/keys/new/1", &kid(&new).replace("/keys/", "/secrets/")]
    {
        let answer = present(&vault, &old, 3, Some(successor)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{successor}: {}", answer.body);
    }
    let missing = kid(&new).replace("/new/", "/none/");
    assert_eq!(present(&vault, &old, 3, Some(&missing)).await.status, StatusCode::NOT_FOUND);
    // Without a nonce there is nothing that an answer could be fresh for.
    let body = json!({"target": attestation().token(&vault.evidence(3)), "successor": kid(&new)});
    let caller = vault.caller(&[RELEASE_USER]);
    let answer =
        vault.send("POST", &format!("{}/release", path(&old)), Some(&caller), body.to_string()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.body);
}

#[tokio::test]
async fn a_token_without_a_guest_state_moves_nothing() {
    let vault = Vault::new().await;
    let old = vault.exportable("k", platform_conditions()).await;
    let new = vault.exportable("k", platform_conditions()).await;
    let mut claims = vault.evidence(0);
    claims["x-ms-runtime"].as_object_mut().unwrap().remove("guest-state");
    let body = json!({"target": attestation().token(&claims), "nonce": NONCE, "successor": kid(&new)});
    let caller = vault.caller(&[RELEASE_USER]);
    let answer =
        vault.send("POST", &format!("{}/release", path(&old)), Some(&caller), body.to_string()).await;
    assert_eq!(answer.denial()["code"], "GuestStateMissing", "{}", answer.body);
    assert_eq!(claims["x-ms-inittime"]["vmId"], VM);
}
