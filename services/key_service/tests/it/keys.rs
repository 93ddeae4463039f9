//! Creating, reading, changing, deleting keys; wrapping and unwrapping.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::vault::{BASE, Vault};

#[tokio::test]
async fn a_created_key_is_read_by_version_by_name_and_with_a_slash_behind() {
    let vault = Vault::new().await;
    let created = vault.officer("POST", "/keys/disk-key/create", &json!({"kty": "rsa"})).await.ok();
    let kid = created["key"]["kid"].as_str().unwrap();
    let path = kid.strip_prefix(BASE).unwrap();
    let version = path.rsplit('/').next().unwrap();
    assert!(version.len() == 32 && version.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{version}");
    assert_eq!(created["key"]["kty"], "RSA");
    assert_eq!(created["key"]["e"], "AQAB");
    assert_eq!(created["attributes"]["exportable"], false);
    for path in [path, "/keys/disk-key", "/keys/disk-key/", "/keys/DISK-KEY"] {
        assert_eq!(vault.get(path).await.ok(), created, "{path}");
    }
    let missing = vault.get("/keys/other").await;
    assert_eq!((missing.status, missing.code()), (StatusCode::NOT_FOUND, "KeyNotFound"));
    assert_eq!(Value::Null, *missing.denial());
}
