//! Keys of every type: what is made, what is answered, what each can do and what not.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::issuer::decoded;
use crate::support::vault::{Vault, platform_conditions, policy};

/// Type, how it is asked for, the members of the answer with their bytes, and the operations.
type Kind = (&'static str, Value, Vec<(&'static str, usize)>, Value);

fn kinds() -> Vec<Kind> {
    let rsa = json!(["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]);
    let (ec, oct) = (json!(["sign", "verify"]), json!(["encrypt", "decrypt", "wrapKey", "unwrapKey"]));
    vec![
        ("RSA", json!({}), vec![("n", 256), ("e", 3)], rsa.clone()),
        ("RSA-HSM", json!({"key_size": 3072}), vec![("n", 384), ("e", 3)], rsa.clone()),
        ("RSA", json!({"key_size": 4096, "public_exponent": 65537}), vec![("n", 512), ("e", 3)], rsa),
        ("EC", json!({}), vec![("x", 32), ("y", 32)], ec.clone()),
        ("EC-HSM", json!({"crv": "P-256"}), vec![("x", 32), ("y", 32)], ec.clone()),
        ("EC", json!({"crv": "P-384"}), vec![("x", 48), ("y", 48)], ec.clone()),
        ("EC-HSM", json!({"crv": "P-521"}), vec![("x", 66), ("y", 66)], ec.clone()),
        ("EC", json!({"crv": "P-256K"}), vec![("x", 32), ("y", 32)], ec),
        ("oct", json!({"key_size": 128}), vec![], oct.clone()),
        ("oct-HSM", json!({"key_size": 192}), vec![], oct.clone()),
        ("oct-HSM", json!({}), vec![], oct),
    ]
}

async fn create(vault: &Vault, name: &str, kty: &str, mut body: Value) -> crate::support::vault::Answer {
    body["kty"] = json!(kty);
    vault.officer("POST", &format!("/keys/{name}/create"), &body).await
}

#[tokio::test]
async fn a_key_of_each_type_is_made_read_and_answers_no_secret() {
    let vault = Vault::new().await;
    for (number, (kty, body, members, ops)) in kinds().into_iter().enumerate() {
        let name = format!("k{number}");
        let created = create(&vault, &name, &kty.to_lowercase(), body.clone()).await.ok();
        let key = created["key"].as_object().unwrap();
        assert_eq!((&key["kty"], &key["key_ops"]), (&json!(kty), &ops), "{kty} {body}");
        for (member, length) in &members {
            assert_eq!(decoded(key[*member].as_str().unwrap()).len(), *length, "{kty} {member}");
        }
        let expected = 3 + members.len() + usize::from(kty.starts_with("EC"));
        assert_eq!(key.len(), expected, "kid, kty, key_ops and the public part: {key:?}");
        assert_eq!(vault.get(&format!("/keys/{name}")).await.ok(), created);
    }
    // Each of them is still there, and readable, after a restart.
    let vault = vault.restart().await;
    assert_eq!(vault.get("/keys").await.ok()["value"].as_array().unwrap().len(), kinds().len());
}

#[tokio::test]
async fn sizes_curves_and_operations_that_a_type_does_not_have() {
    let vault = Vault::new().await;
    let cases = [
        ("RSA", json!({"crv": "P-256"}), "crv"),
        ("RSA", json!({"key_size": 256}), "key_size"),
        ("RSA", json!({"public_exponent": 3}), "public_exponent"),
        ("EC", json!({"crv": "P-224"}), "crv"),
        ("EC", json!({"crv": ""}), "crv"),
        ("EC", json!({"key_size": 256}), "key_size"),
        ("EC", json!({"public_exponent": 65537}), "public_exponent"),
        ("EC", json!({"key_ops": ["encrypt"]}), "key_ops"),
        ("EC-HSM", json!({"key_ops": ["sign", "wrapKey"]}), "key_ops"),
        ("oct", json!({"crv": "P-256"}), "crv"),
        ("oct", json!({"key_size": 64}), "key_size"),
        ("oct", json!({"key_size": 2048}), "key_size"),
        ("oct-HSM", json!({"key_ops": ["sign"]}), "key_ops"),
        ("oct-HSM", json!({"key_ops": ["import"]}), "key_ops"),
    ];
    for (kty, body, target) in cases {
        let answer = create(&vault, "k", kty, body.clone()).await;
        assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, target), "{kty} {body}");
    }
    assert_eq!(vault.get("/keys").await.ok()["value"], json!([]), "none of them left anything");
}

#[tokio::test]
async fn exportable_keys_of_every_type_are_of_the_hsm_kind() {
    let vault = Vault::new().await;
    let exportable = json!({
        "attributes": {"exportable": true}, "release_policy": {"data": policy(&platform_conditions())}});
    for kty in ["RSA", "EC", "oct"] {
        let answer = create(&vault, "k", kty, exportable.clone()).await;
        let message = answer.body["error"]["message"].as_str().unwrap();
        let expected = format!("AKV.SKR.1006: Exportable {kty} keys must be of type {kty}-HSM.");
        assert_eq!((answer.target(), message), ("kty", expected.as_str()));
        let created = create(&vault, "k", &format!("{kty}-HSM"), exportable.clone()).await.ok();
        assert_eq!(created["attributes"]["exportable"], true);
    }
}

#[tokio::test]
async fn a_changed_key_keeps_to_the_operations_of_its_type() {
    let vault = Vault::new().await;
    create(&vault, "k", "EC", json!({})).await.ok();
    assert_eq!(vault.officer("PATCH", "/keys/k", &json!({"key_ops": ["encrypt"]})).await.target(), "key_ops");
    let changed = vault.officer("PATCH", "/keys/k", &json!({"key_ops": ["verify"]})).await.ok();
    assert_eq!(changed["key"]["key_ops"], json!(["verify"]));
}
