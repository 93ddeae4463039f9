//! Several services on one vault.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use key_service::app::StartError;
use key_service::reconcile::{prune, rotate};
use serde_json::{Value, json};

use crate::support::issuer::attestation;
use crate::support::vault::{BASE, Folder, Vault, platform_conditions};

const DAY: i64 = 86_400;

/// Two services that run on one new vault.
async fn two() -> (Vault, Vault) {
    let first = Folder::on_postgres();
    let second = first.replica();
    (first.open().await, second.open().await)
}

async fn health(vault: &Vault) -> Value {
    vault.get("/health").await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn services_that_start_at_once_on_a_new_vault_make_one_identity() {
    let first = Folder::on_postgres();
    // The master key is handed out beforehand, as an installation of several machines must.
    std::fs::write(first.dir.path().join("master.key"), "5a".repeat(32)).unwrap();
    set_mode(&first);
    let others = [first.replica(), first.replica(), first.replica()];
    let [second, third, fourth] = others;
    let vaults = tokio::join!(first.open(), second.open(), third.open(), fourth.open());
    let mut seen = Vec::new();
    for vault in [&vaults.0, &vaults.1, &vaults.2, &vaults.3] {
        let health = health(vault).await;
        seen.push((health["masterKeyId"].clone(), health["releaseSigningRoot"].clone()));
    }
    assert!(seen.iter().all(|identity| *identity == seen[0]), "{seen:?}");
}

fn set_mode(folder: &Folder) {
    use std::os::unix::fs::PermissionsExt as _;
    let file = folder.dir.path().join("master.key");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Each would make a key of its own: all but one find out that the vault has another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_services_with_different_master_keys_one_starts() {
    let first = Folder::on_postgres();
    let other = || Folder { database: first.database.clone(), ..Folder::in_a_file() };
    let (second, third) = (other(), other());
    let (one, two, three) = tokio::join!(first.try_open(), second.try_open(), third.try_open());
    let mut started = 0;
    for outcome in [one, two, three] {
        match outcome {
            Ok(_) => started += 1,
            Err(StartError::MasterKey(error)) => {
                assert!(error.to_string().contains("but the database was sealed under"), "{error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(started, 1);
}

#[tokio::test]
async fn what_one_service_did_the_other_knows_at_once() {
    let (first, second) = two().await;
    let made = first.officer("POST", "/keys/Shared/create", &json!({"kty": "EC"})).await.ok();
    assert_eq!(second.get("/keys/sHARED").await.ok(), made);
    second.officer("DELETE", "/keys/shared", &Value::Null).await.ok();
    assert_eq!(first.get("/keys/shared").await.status, StatusCode::NOT_FOUND);
    let held = first.officer("POST", "/keys/SHARED/create", &json!({"kty": "EC"})).await;
    assert_eq!(held.status, StatusCode::CONFLICT);
    let log = first.log().await;
    assert_eq!(second.log().await, log);
    public_api::decision_log::verify(None, &log).unwrap();
}

#[tokio::test]
async fn a_token_that_one_service_took_is_replayed_at_the_other() {
    let (first, second) = two().await;
    first.exportable("platform", platform_conditions()).await;
    let token = attestation().token(&first.evidence(0));
    first.release("/keys/platform/release", &token).await.ok();
    let replayed = second.release("/keys/platform/release", &token).await;
    assert_eq!(replayed.denial()["code"], "TokenReplayed");
    second.release("/keys/platform/release", &attestation().token(&second.evidence(1))).await.ok();
    let old = first.release("/keys/platform/release", &attestation().token(&first.evidence(0))).await;
    assert_eq!(old.denial()["code"], "RollbackRefused");
}

/// The same token at both at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_services_that_are_shown_one_token_one_releases() {
    let (first, second) = two().await;
    first.exportable("platform", platform_conditions()).await;
    let (first, second) = (Arc::new(first), Arc::new(second));
    for _ in 0..10 {
        let token = attestation().token(&first.evidence(0));
        let ask = |vault: &Arc<Vault>| {
            let (vault, token) = (Arc::clone(vault), token.clone());
            tokio::spawn(async move { vault.release("/keys/platform/release", &token).await.status })
        };
        let (one, other) = (ask(&first), ask(&second));
        let mut both = [one.await.unwrap(), other.await.unwrap()];
        both.sort();
        assert_eq!(both, [StatusCode::OK, StatusCode::FORBIDDEN]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_is_due_is_renewed_and_told_once() {
    let (first, second) = two().await;
    first.officer("POST", "/keys/Due/create", &json!({"kty": "oct-HSM", "key_size": 256})).await.ok();
    let actions = [("Rotate", "P30D"), ("Notify", "P20D")]
        .map(|(kind, after)| json!({"trigger": {"timeAfterCreate": after}, "action": {"type": kind}}));
    let policy = json!({"lifetimeActions": actions, "attributes": {"expiryTime": "P90D"}});
    second.officer("PUT", "/keys/due/rotationpolicy", &policy).await.ok();
    first.folder.clock.fetch_add(31 * DAY, Ordering::SeqCst);
    let pass = |vault: &Vault| {
        let state = Arc::clone(&vault.state);
        tokio::spawn(async move { rotate::once(&state).await.unwrap() })
    };
    let passes = [pass(&first), pass(&second), pass(&first), pass(&second)];
    let mut made = 0;
    for pass in passes {
        made += pass.await.unwrap();
    }
    assert_eq!(made, 1, "one new version");
    assert_eq!(first.get("/keys/due/versions").await.ok()["value"].as_array().unwrap().len(), 2);
    let told = |log: &[public_api::decision_log::Entry]| {
        log.iter().filter(|entry| entry.detail["operation"] == "nearExpiry").count()
    };
    assert_eq!(told(&first.log().await), 1, "one entry about the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_whose_time_is_over_is_purged_and_told_once() {
    let (first, second) = two().await;
    first.officer("POST", "/keys/Old/create", &json!({"kty": "EC"})).await.ok();
    first.officer("DELETE", "/keys/old", &Value::Null).await.ok();
    first.folder.clock.fetch_add(91 * DAY, Ordering::SeqCst);
    let (one, other) = tokio::join!(prune::once(&first.state), prune::once(&second.state));
    assert_eq!(one.unwrap() + other.unwrap(), 1);
    let log = second.log().await;
    let purged: Vec<_> = log.iter().filter(|entry| entry.detail["operation"] == "scheduledPurge").collect();
    assert_eq!(purged.len(), 1);
    assert!(purged[0].subject.ends_with("/keys/Old"), "as it was spelled: {}", purged[0].subject);
}

/// A promise binds the services that were started before it was made.
#[tokio::test]
async fn purge_protection_that_one_service_was_started_with_binds_the_other() {
    let first = Folder::on_postgres();
    let second = first.replica();
    let first = first.open().await;
    first.officer("POST", "/keys/k/create", &json!({"kty": "EC"})).await.ok();
    first.officer("DELETE", "/keys/k", &Value::Null).await.ok();
    let protect = |text: String| text.replace("[callers]", "[recovery]\npurge_protection = true\n[callers]");
    let second = second.open_with(protect).await;
    let refused = first.officer("DELETE", "/deletedkeys/k", &Value::Null).await;
    assert_eq!(refused.denial()["code"], "PurgeProtected");
    assert_eq!(second.get("/deletedkeys/k").await.status, StatusCode::OK);
}

#[tokio::test]
async fn pages_and_their_order_are_those_of_a_file() {
    let names = ["b", "A-2", "a1", "Zz", "z", "A", "0", "a-1", "B2", "az", "Aa"];
    let mut orders = Vec::new();
    for folder in [Folder::in_a_file(), Folder::on_postgres()] {
        let vault = folder.open().await;
        for name in names {
            let path = format!("/keys/{name}/create");
            vault.officer("POST", &path, &json!({"kty": "oct-HSM", "key_size": 128})).await.ok();
        }
        let (mut order, mut path) = (Vec::new(), Some("/keys?maxresults=3".to_owned()));
        while let Some(next) = path {
            let page = vault.get(&next).await.ok();
            let items = page["value"].as_array().unwrap().clone();
            assert!(items.len() <= 3);
            order.extend(items.iter().map(|item| item["kid"].as_str().unwrap().to_owned()));
            let link = page["nextLink"].as_str().map(str::to_owned);
            path = link.map(|link| link.strip_prefix(BASE).unwrap().to_owned());
        }
        orders.push(order);
    }
    assert_eq!(orders[0].len(), names.len());
    assert_eq!(orders[0], orders[1]);
}

#[tokio::test]
async fn a_name_or_version_that_a_server_cannot_hold_is_not_found() {
    for folder in [Folder::in_a_file(), Folder::on_postgres()] {
        let vault = folder.open().await;
        vault.officer("POST", "/keys/k/create", &json!({"kty": "EC"})).await.ok();
        // The Kelvin sign is a k to who folds all of Unicode.
        for path in ["/keys/k%00", "/keys/k/%00", "/keys/%E2%84%AA", "/deletedkeys/%00"] {
            assert_eq!(vault.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
}
