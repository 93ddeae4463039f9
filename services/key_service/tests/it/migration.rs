//! A database of the first version of the service opens, and its keys work.

use std::path::Path;

use serde_json::json;
use sqlx::Connection as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::support::issuer::{attestation, encoded, transfer_key};
use crate::support::unwrap::{modulus, released_modulus, verified};
use crate::support::vault::{Vault, platform_conditions};

const FIRST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/migrations/0001_keys.sql");

/// Makes a database of the first schema beside the present one and puts the rows into it, as the first version would
/// have stored them.
async fn downgrade(data: &Path) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(FIRST, folder.path().join("0001_keys.sql")).unwrap();
    let (present, old) = (data.join("keys.sqlite"), data.join("old.sqlite"));
    let options = SqliteConnectOptions::new().filename(&old).create_if_missing(true).foreign_keys(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    Migrator::new(folder.path()).await.unwrap().run(&mut connection).await.unwrap();
    sqlx::query("ATTACH ? AS present")
        .bind(present.to_str().unwrap())
        .execute(&mut connection)
        .await
        .unwrap();
    let statements = [
        "INSERT INTO meta SELECT name, value FROM present.meta",
        "INSERT INTO keys SELECT name, created, deleted, purge_at FROM present.keys",
        "INSERT INTO key_versions SELECT name, version, number, kty, modulus, exponent, key_ops, tags, enabled,
             not_before, expires, created, updated, revision, exportable, policy, policy_type, policy_immutable, sealed
         FROM present.key_versions",
        "INSERT INTO used_tokens SELECT issuer, token, forget FROM present.used_tokens",
        "INSERT INTO generations SELECT name, vm_id, generation, updated FROM present.generations",
        "INSERT INTO decisions SELECT sequence, entry FROM present.decisions",
    ];
    for statement in statements {
        let rows = sqlx::query(statement).execute(&mut connection).await.unwrap().rows_affected();
        assert!(rows > 0, "{statement}");
    }
    connection.close().await.unwrap();
    for rest in ["keys.sqlite-wal", "keys.sqlite-shm"] {
        let _ = std::fs::remove_file(data.join(rest));
    }
    std::fs::rename(old, present).unwrap();
}

#[tokio::test]
async fn keys_of_the_first_version_are_read_used_released_and_followed_by_others() {
    let vault = Vault::new().await;
    let platform = vault.exportable("platform", platform_conditions()).await;
    vault.release("/keys/platform/release", &attestation().token(&vault.evidence(0))).await.ok();
    vault.release("/keys/platform/release", &attestation().token(&vault.evidence(1))).await.ok();
    vault.officer("POST", "/keys/k/create", &json!({"kty": "RSA", "tags": {"a": "b"}})).await.ok();
    let body = json!({"alg": "RSA-OAEP", "value": encoded("secret")});
    let wrapped = vault.officer("POST", "/keys/k/wrapkey", &body).await.ok();
    let (old, log) = (vault.get("/keys/k").await.ok(), vault.log().await);
    let Vault { app, state, folder } = vault;
    drop((app, state));
    downgrade(&folder.dir.path().join("data")).await;
    let vault = folder.open().await;
    assert_eq!(vault.get("/keys/k").await.ok(), old);
    assert_eq!(vault.get("/keys/platform").await.ok(), platform);
    assert_eq!(vault.log().await, log);
    let open = json!({"alg": "RSA-OAEP", "value": wrapped["value"]});
    assert_eq!(vault.officer("POST", "/keys/k/unwrapkey", &open).await.ok()["value"], encoded("secret"));
    let stale = vault.release("/keys/platform/release", &attestation().token(&vault.evidence(0))).await;
    assert_eq!(stale.denial()["code"], "RollbackRefused");
    let answer = vault.release("/keys/platform/release", &attestation().token(&vault.evidence(2))).await.ok();
    let (_, payload) = verified(answer["value"].as_str().unwrap());
    assert_eq!(released_modulus(&payload, transfer_key()), modulus(&platform));
    vault.officer("POST", "/keys/k/create", &json!({"kty": "EC"})).await.ok();
    assert_eq!(vault.get("/keys/k/versions").await.ok()["value"].as_array().unwrap().len(), 2);
}
