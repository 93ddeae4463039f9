//! Importing keys: whole private JSON Web Keys, and what is inconsistent or weak.

use aws_lc_rs::rsa::KeySize;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::issuer::{decoded, encoded};
use crate::support::jwk;
use crate::support::vault::{Answer, Vault, platform_conditions, policy};

async fn import(vault: &Vault, body: &Value) -> Answer {
    vault.officer("PUT", "/keys/k", body).await
}

fn with(jwk: &Value, member: &str, value: Value) -> Value {
    let mut jwk = jwk.clone();
    jwk[member] = value;
    json!({"key": jwk})
}

fn without(jwk: &Value, member: &str) -> Value {
    let mut jwk = jwk.clone();
    jwk.as_object_mut().unwrap().remove(member).expect("it was there");
    json!({"key": jwk})
}

#[tokio::test]
async fn an_imported_key_of_each_type_is_the_one_that_was_sent() {
    let vault = Vault::new().await;
    let keys = [
        jwk::rsa(KeySize::Rsa2048),
        jwk::rsa(KeySize::Rsa3072),
        jwk::ec("P-256"),
        jwk::ec("P-384"),
        jwk::ec("P-521"),
        jwk::ec("P-256K"),
        jwk::oct(b"0123456789abcdef"),
        jwk::oct(b"0123456789abcdef01234567"),
        jwk::oct(b"0123456789abcdef0123456789abcdef"),
    ];
    for key in keys {
        let kty = key["kty"].as_str().unwrap();
        let imported = import(&vault, &json!({"key": key})).await.ok();
        assert_eq!(imported["key"]["kty"], kty);
        for member in ["n", "e", "crv", "x", "y"] {
            assert_eq!(imported["key"][member], key[member], "{member}");
        }
        for member in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert_eq!(imported["key"][member], Value::Null, "{member} stays inside");
        }
        for (hsm, body) in [("Hsm", true), ("hsm", true)] {
            let imported = import(&vault, &json!({"key": key, hsm: body})).await.ok();
            assert_eq!(imported["key"]["kty"], format!("{kty}-HSM"));
        }
    }
    let log = vault.log().await;
    assert!(log.iter().all(|entry| entry.detail["operation"] == "import"), "each is on record");
    assert_eq!(log.len(), 27);
}

/// What was encrypted to the key's public part elsewhere is decrypted by the vault: the secret is the one that was sent.
#[tokio::test]
async fn an_imported_secret_does_what_it_did_before() {
    let vault = Vault::new().await;
    import(&vault, &json!({"key": jwk::oct(b"0123456789abcdef")})).await.ok();
    // AES-128 key wrap of 16 bytes 7, made with the test's own library under the same key.
    let kek = aws_lc_rs::key_wrap::AesKek::new(&aws_lc_rs::key_wrap::AES_128, b"0123456789abcdef").unwrap();
    let mut buffer = [0; 24];
    let wrapped = aws_lc_rs::key_wrap::KeyWrap::wrap(kek, &[7; 16], &mut buffer).unwrap();
    let body = json!({"alg": "A128KW", "value": encoded(wrapped)});
    let answer = vault.officer("POST", "/keys/k/unwrapkey", &body).await.ok();
    assert_eq!(decoded(answer["value"].as_str().unwrap()), [7; 16]);
}

#[tokio::test]
async fn properties_of_an_imported_key() {
    let vault = Vault::new().await;
    let mut key = jwk::rsa(KeySize::Rsa2048);
    key["key_ops"] = json!(["unwrapKey", "wrapKey"]);
    key["kid"] = json!("https://elsewhere.test/keys/a/b");
    let body = json!({
        "key": key, "Hsm": true, "tags": {"a": "b"},
        "attributes": {"enabled": false, "exp": 2_000_000_000, "exportable": true},
        "release_policy": {"data": policy(&platform_conditions())},
    });
    let imported = import(&vault, &body).await.ok();
    assert_eq!(imported["key"]["key_ops"], json!(["wrapKey", "unwrapKey"]));
    assert_eq!(imported["tags"], json!({"a": "b"}));
    assert_eq!(imported["attributes"]["enabled"], false);
    assert!(imported["key"]["kid"].as_str().unwrap().starts_with("https://keys.vault.casemate.test"));
    let mut soft = body.clone();
    soft["Hsm"] = json!(null);
    let answer = import(&vault, &soft).await;
    assert!(answer.body["error"]["message"].as_str().unwrap().starts_with("AKV.SKR.1006: "));
}

#[tokio::test]
async fn keys_that_are_none() {
    let vault = Vault::new().await;
    let (rsa, ec, oct) = (jwk::rsa(KeySize::Rsa2048), jwk::ec("P-256"), jwk::oct(b"0123456789abcdef"));
    let other = jwk::rsa(KeySize::Rsa2048);
    let mut cases = vec![
        (with(&rsa, "kty", json!("RSA-")), "key.kty"),
        (with(&rsa, "kty", json!("EC")), "key.n"),
        (with(&rsa, "k", json!("AAAA")), "key.k"),
        (with(&rsa, "crv", json!("P-256")), "key.crv"),
        (with(&rsa, "n", other["n"].clone()), "key.key"),
        (with(&rsa, "d", other["d"].clone()), "key.key"),
        (with(&rsa, "p", other["p"].clone()), "key.key"),
        (with(&rsa, "q", rsa["p"].clone()), "key.q"),
        (with(&rsa, "dp", other["dp"].clone()), "key.key"),
        (with(&rsa, "qi", other["qi"].clone()), "key.key"),
        (with(&rsa, "e", json!("AQ")), "key.e"),
        (with(&rsa, "e", json!("Aw")), "key.e"),
        (with(&rsa, "e", json!("AQAC")), "key.e"),
        (with(&rsa, "e", json!("AQAAAAE")), "key.e"),
        (with(&rsa, "d", json!("AQAB")), "key.d"),
        (with(&rsa, "p", json!("Aw")), "key.p"),
        (with(&rsa, "n", json!(encoded([0xC1; 128]))), "key.n"),
        (with(&rsa, "n", json!(encoded([0; 256]))), "key.n"),
        (with(&rsa, "key_hsm", json!("AAAA")), "key.key_hsm"),
        (with(&rsa, "key_ops", json!(["export"])), "key_ops"),
        (with(&ec, "d", json!("AQ")), "key.key"),
        (with(&ec, "y", ec["x"].clone()), "key.key"),
        (with(&ec, "crv", json!("P-384")), "key.key"),
        (with(&ec, "crv", json!("P-999")), "key.crv"),
        (with(&ec, "e", json!("AQAB")), "key.e"),
        (with(&oct, "k", json!("")), "key.k"),
        (with(&oct, "k", json!(encoded([1; 15]))), "key.k"),
        (with(&oct, "k", json!(encoded([0; 32]))), "key.k"),
        (with(&oct, "d", json!("AQ")), "key.d"),
        (with(&oct, "t", json!("AQ")), "key.t"),
        (json!({"key": {"kty": "oct-HSM", "k": encoded(b"0123456789abcdef")}, "Hsm": false}), "Hsm"),
        (json!({}), "body"),
    ];
    let members = ["n", "e", "d", "p", "q", "dp", "dq", "qi"].map(|member| (&rsa, member));
    let needed = members.into_iter().chain([(&ec, "crv"), (&ec, "d"), (&ec, "x"), (&ec, "y"), (&oct, "k")]);
    let targets: Vec<_> =
        needed.map(|(key, member)| (without(key, member), format!("key.{member}"))).collect();
    cases.extend(targets.iter().map(|(body, target)| (body.clone(), target.as_str())));
    for (body, target) in cases {
        let answer = import(&vault, &body).await;
        assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, target), "{}", answer.body);
        let text = answer.body.to_string();
        for secret in [&rsa["d"], &rsa["p"], &ec["d"], &oct["k"]] {
            assert!(!text.contains(secret.as_str().unwrap()), "an error says nothing of the key");
        }
    }
    assert_eq!(vault.get("/keys").await.ok()["value"], json!([]));
}

/// The members belong together (the library's check passes), but one factor is a product of two primes.
#[tokio::test]
async fn an_rsa_key_whose_factors_are_not_prime() {
    let vault = Vault::new().await;
    let key: Value = serde_json::from_str(include_str!("support/composite.json")).unwrap();
    let answer = import(&vault, &json!({"key": key})).await;
    assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, "key.p"), "{}", answer.body);
}
