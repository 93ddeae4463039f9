//! Backups: opaque, whole, of one installation only; and what the vault promises about deleted keys.

use axum::http::StatusCode;
use key_service::app::StartError;
use serde_json::{Value, json};

use crate::support::issuer::{attestation, decoded, encoded, transfer_key};
use crate::support::unwrap::{modulus, released_modulus, verified};
use crate::support::vault::{Answer, Folder, VM, Vault, platform_conditions};

async fn backup(vault: &Vault, name: &str) -> Value {
    vault.officer("POST", &format!("/keys/{name}/backup"), &Value::Null).await.ok()
}

async fn restore(vault: &Vault, backup: &Value) -> Answer {
    vault.officer("POST", "/keys/restore", backup).await
}

async fn destroy(vault: &Vault, name: &str) {
    vault.officer("DELETE", &format!("/keys/{name}"), &Value::Null).await.ok();
    let purged = vault.officer("DELETE", &format!("/deletedkeys/{name}"), &Value::Null).await;
    assert_eq!(purged.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_restored_key_of_each_type_has_all_its_versions_and_works() {
    let vault = Vault::new().await;
    for kind in [
        json!({"kty": "RSA", "tags": {"a": "b"}}),
        json!({"kty": "EC-HSM", "crv": "P-521", "attributes": {"nbf": 1, "exp": 2_000_000_000}}),
        json!({"kty": "oct-HSM", "key_size": 128, "key_ops": ["wrapKey", "unwrapKey"]}),
    ] {
        vault.officer("POST", "/keys/k/create", &kind).await.ok();
        vault.officer("POST", "/keys/k/create", &kind).await.ok();
        let action = json!({"trigger": {"timeAfterCreate": "P30D"}, "action": {"type": "Rotate"}});
        vault.officer("PUT", "/keys/k/rotationpolicy", &json!({"lifetimeActions": [action]})).await.ok();
        let before = (
            vault.get("/keys/k").await.ok(),
            vault.get("/keys/k/versions").await.ok(),
            vault.get("/keys/k/rotationpolicy").await.ok(),
        );
        let saved = backup(&vault, "k").await;
        destroy(&vault, "k").await;
        assert_eq!(restore(&vault, &saved).await.ok(), before.0);
        let after = (
            vault.get("/keys/k").await.ok(),
            vault.get("/keys/k/versions").await.ok(),
            vault.get("/keys/k/rotationpolicy").await.ok(),
        );
        assert_eq!(after, before);
        let log = vault.log().await;
        let operations: Vec<_> = log.iter().rev().take(4).map(|entry| &entry.detail["operation"]).collect();
        assert_eq!(operations, ["restore", "purge", "delete", "backup"]);
        if kind["kty"] == "oct-HSM" {
            let body = json!({"alg": "A128KW", "value": encoded([1; 16])});
            vault.officer("POST", "/keys/k/wrapkey", &body).await.ok();
        }
        destroy(&vault, "k").await;
    }
}

#[tokio::test]
async fn a_backup_says_nothing_and_any_change_of_it_is_refused() {
    let vault = Vault::new().await;
    vault
        .officer("POST", "/keys/plain-name/create", &json!({"kty": "EC", "tags": {"visible": "tag"}}))
        .await
        .ok();
    let (one, two) = (backup(&vault, "plain-name").await, backup(&vault, "plain-name").await);
    assert_ne!(one, two, "never the same bytes");
    let bytes = decoded(one["value"].as_str().unwrap());
    for word in ["plain-name", "visible", "P-256", "key_ops"] {
        assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
    }
    destroy(&vault, "plain-name").await;
    for at in (0..bytes.len()).step_by(97).chain([0, 11, 12, bytes.len() - 1]) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let answer = restore(&vault, &json!({"value": encoded(changed)})).await;
        assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, "value"));
    }
    for value in [&[][..], &bytes[1..], &bytes[..bytes.len() - 1]] {
        assert_eq!(restore(&vault, &json!({"value": encoded(value)})).await.target(), "value");
    }
    assert_eq!(restore(&vault, &json!({})).await.target(), "body");
    restore(&vault, &one).await.ok();
}

#[tokio::test]
async fn another_installation_cannot_read_it() {
    let (here, there) = (Vault::new().await, Vault::new().await);
    here.officer("POST", "/keys/k/create", &json!({"kty": "EC"})).await.ok();
    let saved = backup(&here, "k").await;
    let answer = restore(&there, &saved).await;
    assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, "value"));
    // The same installation after a restart can.
    destroy(&here, "k").await;
    let here = here.restart().await;
    restore(&here, &saved).await.ok();
}

#[tokio::test]
async fn a_name_in_use_is_not_overwritten() {
    let vault = Vault::new().await;
    vault.officer("POST", "/keys/k/create", &json!({"kty": "EC"})).await.ok();
    let saved = backup(&vault, "k").await;
    assert_eq!(restore(&vault, &saved).await.status, StatusCode::CONFLICT);
    vault.officer("DELETE", "/keys/k", &Value::Null).await.ok();
    assert_eq!(restore(&vault, &saved).await.status, StatusCode::CONFLICT);
    let missing = vault.officer("POST", "/keys/k/backup", &Value::Null).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_key_may_be_named_restore() {
    let vault = Vault::new().await;
    let created = vault.officer("POST", "/keys/restore/create", &json!({"kty": "EC"})).await.ok();
    assert_eq!(vault.get("/keys/restore").await.ok(), created);
    let answer = vault.officer("POST", "/keys/other", &json!({})).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}

/// A backup taken before a guest state moved on, restored after the key was purged, does not put the clock back.
#[tokio::test]
async fn a_restored_key_still_refuses_older_guest_states() {
    let vault = Vault::new().await;
    let created = vault.exportable("platform", platform_conditions()).await;
    let release = async |generation| {
        vault.release("/keys/platform/release", &attestation().token(&vault.evidence(generation))).await
    };
    release(0).await.ok();
    let early = backup(&vault, "platform").await;
    for generation in 1..=3 {
        release(generation).await.ok();
    }
    let late = backup(&vault, "platform").await;
    for saved in [&early, &late, &early] {
        destroy(&vault, "platform").await;
        assert_eq!(restore(&vault, saved).await.ok()["key"], created["key"]);
        assert_eq!(release(2).await.denial()["code"], "RollbackRefused");
        let answer = release(3).await.ok();
        let (_, payload) = verified(answer["value"].as_str().unwrap());
        assert_eq!(released_modulus(&payload, transfer_key()), modulus(&created));
    }
}

/// What a purged key had released does not come back by a later purge. What a backup of the key from before the reset says
/// does: refusing too much is put right by another reset, releasing too much by nothing.
#[tokio::test]
async fn a_key_that_is_purged_and_restored_after_a_reset() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    let release = async |generation| {
        vault.release("/keys/platform/release", &attestation().token(&vault.evidence(generation))).await
    };
    let reset = async |from: u64, to: u64| {
        let path = format!("/keys/platform/generations/{VM}");
        vault.officer("PUT", &path, &json!({"from": from, "to": to})).await.ok();
    };
    let last = async || vault.get("/keys/platform/generations").await.ok()["value"][0]["generation"].clone();
    for generation in 0..=5 {
        release(generation).await.ok();
    }
    let early = backup(&vault, "platform").await;
    destroy(&vault, "platform").await;
    restore(&vault, &early).await.ok();
    reset(5, 2).await;
    release(3).await.ok();
    let late = backup(&vault, "platform").await;
    destroy(&vault, "platform").await;
    restore(&vault, &late).await.ok();
    assert_eq!(last().await, 3);
    assert_eq!(release(2).await.denial()["code"], "RollbackRefused");
    release(4).await.ok();
    destroy(&vault, "platform").await;
    restore(&vault, &early).await.ok();
    assert_eq!(last().await, 5);
    assert_eq!(release(4).await.denial()["code"], "RollbackRefused");
    reset(5, 4).await;
    release(4).await.ok();
}

fn recovery(settings: &'static str) -> impl Fn(String) -> String {
    move |text| text.replace("[callers]", &format!("[recovery]\n{settings}\n[callers]"))
}

#[tokio::test]
async fn deleted_keys_last_as_long_as_the_vault_says() {
    let cases = [
        ("", "Recoverable+Purgeable", 90),
        ("purge_protection = true", "Recoverable", 90),
        ("days = 7", "CustomizedRecoverable+Purgeable", 7),
        ("days = 30\npurge_protection = true", "CustomizedRecoverable", 30),
    ];
    for (settings, level, days) in cases {
        let vault = Folder::new().open_with(recovery(settings)).await;
        let created = vault.officer("POST", "/keys/k/create", &json!({"kty": "EC"})).await.ok();
        assert_eq!(created["attributes"]["recoveryLevel"], level);
        assert_eq!(created["attributes"]["recoverableDays"], days);
        let deleted = vault.officer("DELETE", "/keys/k", &Value::Null).await.ok();
        assert_eq!(deleted["scheduledPurgeDate"], vault.now() + days * 86_400);
        let purged = vault.officer("DELETE", "/deletedkeys/k", &Value::Null).await;
        if level.ends_with("Purgeable") {
            assert_eq!(purged.status, StatusCode::NO_CONTENT);
            continue;
        }
        assert_eq!(
            (purged.status, &purged.denial()["code"]),
            (StatusCode::FORBIDDEN, &json!("PurgeProtected"))
        );
        assert_eq!(vault.log().await.last().unwrap().detail["operation"], "purge");
        vault.get("/deletedkeys/k").await.ok();
        vault.set_clock(vault.now() + days * 86_400);
        assert_eq!(key_service::reconcile::prune::once(&vault.state).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_vault_does_not_take_its_promise_back() {
    let vault = Folder::new().open_with(recovery("days = 30")).await;
    let Vault { app, state, folder } = vault;
    drop((app, state));
    let refused = async |folder: &Folder, settings| {
        let config = folder.config(recovery(settings)).unwrap();
        match key_service::app::AppState::open(&config, std::sync::Arc::new(|| 1_800_000_000)).await.err() {
            Some(StartError::Recovery { key, recorded, configured }) => (key, recorded, configured),
            other => panic!("{other:?}"),
        }
    };
    let (key, recorded, configured) = refused(&folder, "days = 7").await;
    assert_eq!((key, recorded.as_str(), configured.as_str()), ("days", "30", "7"));
    let vault = folder.open_with(recovery("days = 30\npurge_protection = true")).await;
    let Vault { app, state, folder } = vault;
    drop((app, state));
    assert_eq!(refused(&folder, "days = 30").await.0, "purge_protection");
}
