//! What lies on the disk: nothing readable, nothing exchangeable, and the right master key or none.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::http::StatusCode;
use key_service::app::StartError;
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::support::issuer::{attestation, encoded, sha256_hex, transfer_key};
use crate::support::unwrap::{released_pkcs8, verified};
use crate::support::vault::{ATTESTATION, Folder, Vault, platform_conditions};

/// Every file below a folder, joined.
fn everything(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(everything(&path));
        } else {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    bytes
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

async fn database(folder: &Folder) -> SqliteConnection {
    let file = folder.dir.path().join("data/keys.sqlite");
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap()
}

async fn execute(folder: &Folder, sql: &'static str) {
    let mut connection = database(folder).await;
    let changed = sqlx::query(sql).execute(&mut connection).await.unwrap();
    assert!(changed.rows_affected() > 0, "{sql}");
    connection.close().await.unwrap();
}

async fn release(vault: &Vault, name: &str) -> crate::support::vault::Answer {
    vault.release(&format!("/keys/{name}/release"), &attestation().token(&vault.evidence(0))).await
}

#[tokio::test]
async fn no_key_material_lies_in_database_or_log() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    let answer = release(&vault, "platform").await.ok();
    let (_, payload) = verified(answer["value"].as_str().unwrap());
    let pkcs8 = released_pkcs8(&payload, transfer_key());
    let log = serde_json::to_string(&vault.log().await).unwrap();
    let disk = everything(&vault.folder.dir.path().join("data"));
    // The public modulus is there, as a control; the primes and CRT numbers, the tail of the private key, are not.
    let modulus =
        crate::support::issuer::decoded(&crate::support::unwrap::modulus(&payload["response"]["key"]));
    assert!(contains(&disk, &modulus));
    for start in (pkcs8.len() - 640..pkcs8.len() - 16).step_by(64) {
        let secret = &pkcs8[start..start + 16];
        assert!(!contains(&disk, secret));
        let texts = [encoded(secret), public_api::encoding::to_base64(secret), hex::encode(secret)];
        for text in texts {
            let text = &text.trim_end_matches('=')[..20];
            assert!(!log.contains(text));
            assert!(!contains(&disk, text.as_bytes()));
        }
    }
    // Nor is the token that was presented, or the caller's.
    assert!(!log.contains("eyJ"));
}

#[tokio::test]
async fn the_files_of_the_service_are_for_its_user_only() {
    let vault = Vault::new().await;
    let mode = |path: &str| {
        std::fs::metadata(vault.folder.dir.path().join(path)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("data"), mode("master.key")), (0o700, 0o600));
}

#[tokio::test]
async fn another_master_key_is_refused_at_the_start_and_named() {
    let vault = Vault::new().await;
    let folder = vault.folder;
    drop((vault.app, vault.state));
    std::fs::write(folder.dir.path().join("master.key"), "00".repeat(32)).unwrap();
    let error = folder.try_open().await.err().unwrap();
    let StartError::MasterKey(cause) = error else { panic!("{error}") };
    let text = cause.to_string();
    assert!(
        text.contains("master.key holds master key") && text.contains("but the database was sealed"),
        "{text}"
    );
}

#[tokio::test]
async fn a_lost_master_key_is_not_replaced_by_a_new_one() {
    let vault = Vault::new().await;
    let folder = vault.folder;
    drop((vault.app, vault.state));
    let file = folder.dir.path().join("master.key");
    std::fs::remove_file(&file).unwrap();
    let error = folder.try_open().await.err().unwrap();
    let StartError::MasterKey(cause) = error else { panic!("{error}") };
    assert!(cause.to_string().contains("restore that file"), "{cause}");
    assert!(!file.exists());
}

#[tokio::test]
async fn a_master_key_that_others_can_read_is_refused() {
    let folder = Folder::new();
    let file = folder.dir.path().join("master.key");
    std::fs::write(&file, "ab".repeat(32)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = folder.try_open().await.err().unwrap();
    let StartError::MasterKey(cause) = error else { panic!("{error}") };
    assert!(cause.to_string().contains("mode 0640"), "{cause}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    folder.try_open().await.unwrap();
}

#[tokio::test]
async fn a_master_key_that_is_none_is_refused() {
    for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"00".repeat(33)] {
        let folder = Folder::new();
        let file = folder.dir.path().join("master.key");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = folder.try_open().await.err().unwrap();
        assert!(matches!(error, StartError::MasterKey(_)), "{text:?}: {error}");
    }
}

#[tokio::test]
async fn without_consent_no_master_key_is_made() {
    let folder = Folder::new();
    let config = folder.config(|text| text.replace("create = true", "create = false")).unwrap();
    let error = key_service::app::AppState::open(&config, std::sync::Arc::new(|| 0)).await.err().unwrap();
    assert!(matches!(error, StartError::MasterKey(_)), "{error}");
    assert!(!folder.dir.path().join("master.key").exists());
}

#[tokio::test]
async fn a_second_service_on_the_same_folder_is_refused() {
    let vault = Vault::new().await;
    let error = vault.folder.try_open().await.err().unwrap();
    assert!(matches!(error, StartError::DataDirBusy(_)), "{error}");
}

/// The operator has the database: a policy of its own for the tenant's key.
#[tokio::test]
async fn a_release_policy_exchanged_in_the_database() {
    let vault = Vault::new().await;
    vault.exportable("platform", json!([{"claim": "x-casemate-trust-root", "equals": "amd"}])).await;
    assert_eq!(release(&vault, "platform").await.status, StatusCode::FORBIDDEN);
    let authority = json!({"authority": ATTESTATION, "allOf": platform_conditions()});
    let policy = json!({"version": "1.0.0", "anyOf": [authority]}).to_string();
    let mut connection = database(&vault.folder).await;
    sqlx::query("UPDATE key_versions SET policy = ?")
        .bind(policy.into_bytes())
        .execute(&mut connection)
        .await
        .unwrap();
    let before = vault.log().await.len();
    let answer = release(&vault, "platform").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", answer.body);
    assert_eq!(vault.log().await.len(), before, "nothing is logged as released");
}

#[tokio::test]
async fn a_key_made_exportable_in_the_database() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    vault.officer("POST", "/keys/private/create", &json!({"kty": "RSA-HSM"})).await.ok();
    execute(
        &vault.folder,
        "UPDATE key_versions SET exportable = 1, policy = (SELECT policy FROM key_versions WHERE name = 'platform')
         WHERE name = 'private'",
    )
    .await;
    assert_eq!(release(&vault, "private").await.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn two_sealed_keys_exchanged_in_the_database() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    vault.exportable("other", platform_conditions()).await;
    execute(
        &vault.folder,
        "UPDATE key_versions SET sealed = (SELECT sealed FROM key_versions WHERE name = 'other')
         WHERE name = 'platform'",
    )
    .await;
    assert_eq!(release(&vault, "platform").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    release(&vault, "other").await.ok();
}

#[tokio::test]
async fn a_sealed_key_with_one_changed_or_missing_byte() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    let mut connection = database(&vault.folder).await;
    let sealed: Vec<u8> =
        sqlx::query_scalar("SELECT sealed FROM key_versions").fetch_one(&mut connection).await.unwrap();
    let flipped = |at: usize| {
        let mut bytes = sealed.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damaged = [
        flipped(0),
        flipped(12),
        flipped(sealed.len() - 1),
        sealed[..sealed.len() - 1].to_vec(),
        sealed[..5].to_vec(),
        Vec::new(),
    ];
    for bytes in damaged {
        sqlx::query("UPDATE key_versions SET sealed = ?").bind(bytes).execute(&mut connection).await.unwrap();
        assert_eq!(release(&vault, "platform").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    sqlx::query("UPDATE key_versions SET sealed = ?").bind(sealed).execute(&mut connection).await.unwrap();
    release(&vault, "platform").await.ok();
}

#[tokio::test]
async fn a_purged_key_leaves_nothing_behind() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    let mut connection = database(&vault.folder).await;
    let sealed: Vec<u8> =
        sqlx::query_scalar("SELECT sealed FROM key_versions").fetch_one(&mut connection).await.unwrap();
    vault.officer("DELETE", "/keys/platform", &Value::Null).await.ok();
    let purged = vault.officer("DELETE", "/deletedkeys/platform", &Value::Null).await;
    assert_eq!(purged.status, StatusCode::NO_CONTENT);
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    assert!(!contains(&everything(&vault.folder.dir.path().join("data")), &sealed[..64]));
}

#[tokio::test]
async fn the_signing_identity_survives_a_restart_and_its_leaf_is_renewed_under_the_same_root() {
    let vault = Vault::new().await;
    let created = vault.exportable("platform", platform_conditions()).await;
    let chain = |answer: &Value| verified(answer["value"].as_str().unwrap()).0["x5c"].clone();
    let first = chain(&release(&vault, "platform").await.ok());
    let pem = std::fs::read_to_string(vault.folder.dir.path().join("data/release-signing-root.pem")).unwrap();
    let root = public_api::encoding::from_base64_any(first[1].as_str().unwrap()).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    assert_eq!(public_api::encoding::from_base64_any(&body).unwrap(), root);
    assert_eq!(vault.get("/health").await.ok()["releaseSigningRoot"], sha256_hex(&root));
    let vault = vault.restart().await;
    assert_eq!(chain(&release(&vault, "platform").await.ok()), first);
    assert_eq!(vault.get("/keys/platform").await.ok(), created);
    vault.set_clock(vault.now() + 2 * 366 * 86_400);
    let vault = vault.restart().await;
    let renewed = chain(&release(&vault, "platform").await.ok());
    assert_eq!(renewed[1], first[1]);
    assert_ne!(renewed[0], first[0]);
}
