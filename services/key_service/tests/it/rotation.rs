//! Renewing keys: on demand, by policy, and what stays the same.

use axum::http::StatusCode;
use key_service::reconcile::rotate;
use serde_json::{Value, json};

use crate::support::issuer::{attestation, encoded, transfer_key};
use crate::support::unwrap::{modulus, released_modulus, verified};
use crate::support::vault::{BASE, Vault, platform_conditions};

const DAY: i64 = 86_400;

fn policy(trigger: &Value, expiry: &str) -> Value {
    json!({
        "lifetimeActions": [{"trigger": trigger, "action": {"type": "rotate"}}],
        "attributes": {"expiryTime": expiry},
    })
}

async fn versions(vault: &Vault) -> usize {
    vault.get("/keys/k/versions").await.ok()["value"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_rotated_key_of_each_type_is_alike_but_not_the_same() {
    let vault = Vault::new().await;
    let kinds = [
        json!({"kty": "RSA", "key_size": 2048}),
        json!({"kty": "EC-HSM", "crv": "P-384", "key_ops": ["verify"]}),
        json!({"kty": "oct-HSM", "key_size": 192, "attributes": {"exp": 2_000_000_000}}),
    ];
    for (number, mut kind) in kinds.into_iter().enumerate() {
        let name = format!("k{number}");
        kind["tags"] = json!({"a": "b"});
        let first = vault.officer("POST", &format!("/keys/{name}/create"), &kind).await.ok();
        let second = vault.officer("POST", &format!("/keys/{name}/rotate"), &Value::Null).await.ok();
        assert_ne!(second["key"]["kid"], first["key"]["kid"]);
        assert_eq!(vault.get(&format!("/keys/{name}")).await.ok(), second);
        for member in ["kty", "crv", "key_ops", "e"] {
            assert_eq!(second["key"][member], first["key"][member], "{member}");
        }
        for member in ["n", "x"] {
            assert!(first["key"][member].is_null() || second["key"][member] != first["key"][member]);
        }
        assert_eq!(second["tags"], first["tags"]);
        assert_eq!(second["attributes"]["exp"], Value::Null, "no policy says when it ends");
        let log = vault.log().await;
        assert_eq!(log.last().unwrap().detail["operation"], "rotate");
    }
    let none = vault.officer("POST", "/keys/none/rotate", &Value::Null).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_rotated_exportable_key_is_released_under_the_same_policy() {
    let vault = Vault::new().await;
    let first = vault.exportable("platform", platform_conditions()).await;
    let second = vault.officer("POST", "/keys/platform/rotate", &Value::Null).await.ok();
    assert_eq!(second["release_policy"], first["release_policy"]);
    for bundle in [&first, &second] {
        let path = bundle["key"]["kid"].as_str().unwrap().strip_prefix(BASE).unwrap();
        let token = attestation().token(&vault.evidence(0));
        let answer = vault.release(&format!("{path}/release"), &token).await.ok();
        let (_, payload) = verified(answer["value"].as_str().unwrap());
        assert_eq!(released_modulus(&payload, transfer_key()), modulus(bundle));
    }
}

#[tokio::test]
async fn a_policy_is_kept_shown_and_changed() {
    let vault = Vault::new().await;
    vault.officer("POST", "/keys/k/create", &json!({"kty": "EC"})).await.ok();
    let path = "/keys/K/rotationpolicy";
    let usual = vault.get(path).await.ok();
    assert_eq!(usual["id"], format!("{BASE}/keys/k/rotationpolicy"));
    assert_eq!(usual["lifetimeActions"][0]["action"]["type"], "Notify");
    let set = vault.officer("PUT", path, &policy(&json!({"timeAfterCreate": "P30D"}), "P90D")).await.ok();
    assert_eq!(set["lifetimeActions"][0]["action"]["type"], "Rotate");
    assert_eq!(
        set["attributes"],
        json!({"expiryTime": "P90D", "created": vault.now(), "updated": vault.now()})
    );
    let log = vault.log().await;
    let entry = log.last().unwrap();
    assert_eq!(entry.detail["operation"], "setRotationPolicy");
    assert_eq!(entry.decision, public_api::decision_log::Decision::PolicyChanged);
    let created = vault.now();
    let vault = vault.restart().await;
    vault.set_clock(created + 5);
    assert_eq!(vault.get(path).await.ok(), set);
    let again = vault.officer("PUT", path, &policy(&json!({"timeAfterCreate": "P40D"}), "P90D")).await.ok();
    assert_eq!(
        (&again["attributes"]["created"], &again["attributes"]["updated"]),
        (&json!(created), &json!(created + 5))
    );
    let rotated = vault.officer("POST", "/keys/k/rotate", &Value::Null).await.ok();
    assert_eq!(rotated["attributes"]["exp"], created + 5 + 90 * DAY);
    for (body, target) in [
        (policy(&json!({}), "P90D"), "lifetimeActions[0].trigger"),
        (policy(&json!({"timeAfterCreate": "P3D"}), "P90D"), "lifetimeActions[0].trigger"),
        (policy(&json!({"timeAfterCreate": "P30D"}), "P9D"), "attributes.expiryTime"),
        (json!({"attributes": {"expiry": "P90D"}}), "attributes.expiry"),
        (json!({"actions": []}), "actions"),
    ] {
        assert_eq!(vault.officer("PUT", path, &body).await.target(), target, "{body}");
    }
    let good = policy(&json!({"timeAfterCreate": "P30D"}), "P90D");
    let none = vault.officer("PUT", "/keys/none/rotationpolicy", &good).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    assert_eq!(vault.get("/keys/none/rotationpolicy").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_key_is_renewed_once_when_it_is_due() {
    let vault = Vault::new().await;
    vault.officer("POST", "/keys/k/create", &json!({"kty": "oct"})).await.ok();
    vault.officer("POST", "/keys/other/create", &json!({"kty": "oct"})).await.ok();
    let body = policy(&json!({"timeAfterCreate": "P30D"}), "P90D");
    vault.officer("PUT", "/keys/k/rotationpolicy", &body).await.ok();
    assert_eq!(rotate::once(&vault.state).await.unwrap(), 0);
    vault.set_clock(vault.now() + 30 * DAY - 1);
    assert_eq!(rotate::once(&vault.state).await.unwrap(), 0);
    vault.set_clock(vault.now() + 1);
    assert_eq!(rotate::once(&vault.state).await.unwrap(), 1);
    assert_eq!(rotate::once(&vault.state).await.unwrap(), 0, "the new version is not due");
    assert_eq!(versions(&vault).await, 2);
    let newest = vault.get("/keys/k").await.ok();
    assert_eq!(newest["attributes"]["exp"], vault.now() + 90 * DAY);
    let log = vault.log().await;
    let entry = log.last().unwrap();
    assert_eq!(
        (&entry.detail["operation"], &entry.detail["caller"]),
        (&json!("scheduledRotate"), &Value::Null)
    );
    // Deleted and disabled keys are left alone.
    vault.set_clock(vault.now() + 31 * DAY);
    vault.officer("PATCH", "/keys/k", &json!({"attributes": {"enabled": false}})).await.ok();
    assert_eq!(rotate::once(&vault.state).await.unwrap(), 0);
    vault.officer("PATCH", "/keys/k", &json!({"attributes": {"enabled": true}})).await.ok();
    vault.officer("DELETE", "/keys/k", &Value::Null).await.ok();
    assert_eq!(rotate::once(&vault.state).await.unwrap(), 0);
    vault.officer("POST", "/deletedkeys/k/recover", &Value::Null).await.ok();
    assert_eq!(rotate::once(&vault.state).await.unwrap(), 1);
}

/// Two passes at the same time make one version between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_in_parallel_make_one_version() {
    let vault = Vault::new().await;
    vault.officer("POST", "/keys/k/create", &json!({"kty": "EC"})).await.ok();
    let body = policy(&json!({"timeAfterCreate": "P30D"}), "P90D");
    vault.officer("PUT", "/keys/k/rotationpolicy", &body).await.ok();
    vault.set_clock(vault.now() + 30 * DAY);
    let passes = [(); 4].map(|()| {
        let state = vault.state.clone();
        tokio::spawn(async move { rotate::once(&state).await.unwrap() })
    });
    let mut made = 0;
    for pass in passes {
        made += pass.await.unwrap();
    }
    assert_eq!((made, versions(&vault).await), (1, 2));
}

#[tokio::test]
async fn the_coming_end_of_a_version_is_told_once() {
    let vault = Vault::new().await;
    let end = vault.now() + 100 * DAY;
    vault.officer("POST", "/keys/k/create", &json!({"kty": "EC", "attributes": {"exp": end}})).await.ok();
    let notify = json!({"lifetimeActions": [
        {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}]});
    vault.officer("PUT", "/keys/k/rotationpolicy", &notify).await.ok();
    let told = async || {
        rotate::once(&vault.state).await.unwrap();
        vault.log().await.iter().filter(|entry| entry.detail["operation"] == "nearExpiry").count()
    };
    assert_eq!(told().await, 0);
    vault.set_clock(end - 30 * DAY);
    assert_eq!((told().await, told().await), (1, 1));
    assert_eq!(versions(&vault).await, 1);
}

#[tokio::test]
async fn a_key_encrypted_to_the_old_version_is_still_opened_by_it() {
    let vault = Vault::new().await;
    vault.officer("POST", "/keys/k/create", &json!({"kty": "oct", "key_size": 256})).await.ok();
    let body = json!({"alg": "A256KW", "value": encoded([1; 32])});
    let wrapped = vault.officer("POST", "/keys/k/wrapkey", &body).await.ok();
    vault.officer("POST", "/keys/k/rotate", &Value::Null).await.ok();
    let path = wrapped["kid"].as_str().unwrap().strip_prefix(BASE).unwrap();
    let open = json!({"alg": "A256KW", "value": wrapped["value"]});
    let answer = vault.officer("POST", &format!("{path}/unwrapkey"), &open).await.ok();
    assert_eq!(answer["value"], encoded([1; 32]));
}
