//! Every type of key goes into the token, and is there the key that it was.

use key_service::reconcile::sweep;
use serde_json::{Value, json};

use super::{ask, closed, create, folder, into_token, is_whole, signs, without};
use crate::hsm::token;
use crate::support::issuer::{attestation, encoded, transfer_key};
use crate::support::program::run;
use crate::support::softhsm::with_token_as;
use crate::support::unwrap::{modulus, released_modulus, released_pkcs8, verified};
use crate::support::vault::{Folder, Vault, platform_conditions, policy};

const RSA: [(&str, u32); 2] = [("r2048", 2048), ("r3072", 3072)];

const CURVES: [(&str, &str, usize); 4] =
    [("P-256", "ES256", 32), ("P-384", "ES384", 48), ("P-521", "ES512", 64), ("P-256K", "ES256K", 32)];

/// A vault in a file with a key of every type, and what was made with them.
async fn every_type() -> (Folder, Vec<Value>) {
    let vault = folder().open_with(without).await;
    let released = policy(&platform_conditions());
    for (name, size) in RSA {
        let body = json!({"kty": "RSA-HSM", "key_size": size, "attributes": {"exportable": true},
                          "release_policy": {"data": released}});
        create(&vault, name, &body).await;
    }
    for (curve, ..) in CURVES {
        create(&vault, curve, &json!({"kty": "EC-HSM", "crv": curve})).await;
    }
    let exportable = json!({"kty": "EC-HSM", "attributes": {"exportable": true},
                            "release_policy": {"data": released}});
    create(&vault, "released", &exportable).await;
    for bits in [128, 192, 256] {
        create(&vault, &format!("oct{bits}"), &json!({"kty": "oct-HSM", "key_size": bits})).await;
    }
    create(&vault, "sealed", &json!({"kty": "RSA"})).await;
    create(&vault, "P-256", &json!({"kty": "EC-HSM"})).await;
    create(&vault, "gone", &json!({"kty": "EC-HSM"})).await;
    vault.officer("DELETE", "/keys/gone", &Value::Null).await.ok();
    let made = made(&vault).await;
    (closed(vault), made)
}

/// What is the same each time that a key makes it.
async fn made(vault: &Vault) -> Vec<Value> {
    let mut made = Vec::new();
    for (name, _) in RSA {
        let body = json!({"alg": "RS256", "value": encoded([7; 32])});
        made.push(ask(vault, name, "sign", body).await);
    }
    for bits in [128, 192, 256] {
        let name = format!("oct{bits}");
        let body = json!({"alg": format!("A{bits}KW"), "value": encoded([7; 32])});
        made.push(ask(vault, &name, "wrapkey", body).await);
        let body = json!({"alg": format!("A{bits}CBCPAD"), "value": encoded("x"), "iv": encoded([9; 16])});
        made.push(ask(vault, &name, "encrypt", body).await);
    }
    for (curve, ..) in CURVES {
        made.push(vault.get(&format!("/keys/{curve}/")).await.ok()["key"].clone());
    }
    made
}

/// What was encrypted to the public part before, the private part in the token decrypts.
async fn decrypts(vault: &Vault, sealed: &[Value]) {
    for ((name, _), sealed) in RSA.iter().zip(sealed) {
        let body = json!({"alg": "RSA-OAEP-256", "value": sealed});
        assert_eq!(ask(vault, name, "decrypt", body).await["value"], encoded("secret"), "{name}");
    }
}

#[test]
fn every_type_of_key_moves_into_the_token_and_is_the_same_key_there() {
    with_token_as(("", "all_keys = false"), async |_| {
        let (file, before) = every_type().await;
        let vault = file.open_with(without).await;
        let mut sealed = Vec::new();
        for (name, _) in RSA {
            let body = json!({"alg": "RSA-OAEP-256", "value": encoded("secret")});
            sealed.push(ask(&vault, name, "encrypt", body).await["value"].clone());
        }
        let ec = vault.get("/keys/released/").await.ok();
        let signed = json!({"alg": "ES384", "value": encoded([7; 48])});
        let signed = ask(&vault, "P-384", "sign", signed).await["value"].clone();
        let (file, target) = (closed(vault), folder());
        let said = run(&mut into_token(&file, &target)).json();
        assert_eq!(said["versionsIntoToken"], 12, "{said}");
        let session = token::session();
        assert_eq!(token::states(&session), ["kept"; 12]);
        assert_eq!(token::extractable(&session), 3);

        let vault = target.open().await;
        assert_eq!(made(&vault).await, before);
        decrypts(&vault, &sealed).await;
        for (curve, alg, length) in CURVES {
            signs(&vault, curve, alg, length).await;
        }
        let verify = json!({"alg": "ES384", "digest": encoded([7; 48]), "value": signed});
        assert_eq!(ask(&vault, "P-384", "verify", verify).await["value"], true);
        is_in_the_token(&vault).await;
        is_released(&vault, &ec).await;
        let log = vault.log().await;
        public_api::decision_log::verify(None, &log).unwrap();
        let entry = log.iter().find(|entry| entry.detail["operation"] == "moveVault").unwrap();
        assert_eq!(entry.detail["versionsIntoToken"], 12);
        let swept = sweep::once(&vault.state).await.unwrap();
        assert_eq!(
            (swept.objects, swept.destroyed, swept.unknown, swept.missing),
            (12, vec![], vec![], vec![])
        );
        is_whole(&vault.folder);
    });
}

/// Each key says so, but the one whose type does not belong there; a deleted one comes back.
async fn is_in_the_token(vault: &Vault) {
    vault.officer("POST", "/deletedkeys/gone/recover", &Value::Null).await.ok();
    signs(vault, "gone", "ES256", 32).await;
    let list = vault.get("/keys").await.ok();
    for key in list["value"].as_array().unwrap() {
        let sealed = key["kid"].as_str().unwrap().ends_with("/sealed");
        assert_eq!(key["attributes"]["hsmPlatform"].is_string(), !sealed, "{key}");
    }
    let body = json!({"alg": "RS256", "value": encoded([7; 32])});
    ask(vault, "sealed", "sign", body).await;
}

/// Exportable keys leave the token, as they are, to who proves what it is.
async fn is_released(vault: &Vault, ec: &Value) {
    for (name, _) in RSA {
        let token = attestation().token(&vault.evidence(0));
        let answer = vault.release(&format!("/keys/{name}/release"), &token).await.ok();
        let (_, payload) = verified(answer["value"].as_str().unwrap());
        let shown = vault.get(&format!("/keys/{name}/")).await.ok();
        assert_eq!(released_modulus(&payload, transfer_key()), modulus(&shown));
    }
    let token = attestation().token(&vault.evidence(0));
    let answer = vault.release("/keys/released/release", &token).await.ok();
    let (_, payload) = verified(answer["value"].as_str().unwrap());
    assert_eq!(vault.get("/keys/released/").await.ok()["key"], ec["key"]);
    assert!(!released_pkcs8(&payload, transfer_key()).is_empty());
}
