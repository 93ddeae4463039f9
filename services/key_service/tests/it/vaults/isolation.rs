//! Attacks from one vault, tenant or life of a name on another.

use std::path::Path;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::support::vault::OFFICER;
use crate::support::vaults::{
    ADMINISTRATOR, ALICE, BOB, OPERATOR, OTHER_TENANT, TENANT, Town, assignment, host, settings,
};

const DEFAULT: &str = "keys.vault.casemate.test:8443";

async fn two_vaults() -> Town {
    let town = Town::new().await;
    for name in ["one", "two"] {
        town.make(name, &[assignment(ALICE, ADMINISTRATOR, "/")]).await;
    }
    town
}

#[tokio::test]
async fn a_caller_of_another_tenant_who_has_the_object_id_of_an_administrator() {
    let town = two_vaults().await;
    town.make_key("one", "k").await;
    let foreign = town.token(OTHER_TENANT, ALICE);
    let refused = town.send(&host("one"), "GET", "/keys/k/", Some(&foreign), &Value::Null).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.denial()["code"], "TokenIssuerUnknown", "{}", refused.body);
    // An issuer that states another tenant than its own.
    let mixed = town.token_with(TENANT, ALICE, |claims| claims["tid"] = json!(OTHER_TENANT));
    let refused = town.send(&host("one"), "GET", "/keys/k/", Some(&mixed), &Value::Null).await;
    assert_eq!((refused.status.as_u16(), &refused.denial()["code"]), (401, &json!("TokenTenantWrong")));
    let none = town.token_with(TENANT, ALICE, |claims| drop(claims.as_object_mut().unwrap().remove("tid")));
    let refused = town.send(&host("one"), "GET", "/keys/k/", Some(&none), &Value::Null).await;
    assert_eq!(refused.denial()["code"], "TokenTenantWrong");
}

#[tokio::test]
async fn a_token_without_an_object_id_or_with_roles_in_it() {
    let town = two_vaults().await;
    let nobody = town.token_with(TENANT, ALICE, |claims| drop(claims.as_object_mut().unwrap().remove("oid")));
    let roles = town.token_with(TENANT, BOB, |claims| claims["roles"] = json!([OFFICER, OPERATOR]));
    for token in [nobody, roles] {
        let refused = town.send(&host("one"), "GET", "/keys", Some(&token), &Value::Null).await;
        assert_eq!(refused.denial()["code"], "ForbiddenByRbac", "{}", refused.body);
    }
}

#[tokio::test]
async fn the_same_key_name_in_two_vaults_is_two_keys() {
    let town = two_vaults().await;
    let (first, second) = (town.make_key("one", "k").await, town.make_key("two", "k").await);
    assert_ne!(first, second);
    town.alice("one", "DELETE", "/keys/k", &Value::Null).await.ok();
    assert_eq!(town.alice("two", "GET", "/keys/k/", &Value::Null).await.ok()["key"]["n"], second);
}

#[tokio::test]
async fn the_host_of_another_vault_with_a_token_for_the_first() {
    let town = Town::new().await;
    town.make("one", &[assignment(ALICE, ADMINISTRATOR, "/")]).await;
    town.make("two", &[assignment(BOB, ADMINISTRATOR, "/")]).await;
    let refused = town.alice("two", "GET", "/keys", &Value::Null).await;
    assert_eq!(refused.denial()["code"], "ForbiddenByRbac");
    let default = town.send(DEFAULT, "GET", "/keys", Some(&town.token(TENANT, ALICE)), &Value::Null).await;
    assert_eq!(default.status, StatusCode::UNAUTHORIZED, "the default vault has another audience and issuer");
    let home = town.home_token(&[OFFICER]);
    let named = town.send(&host("one"), "GET", "/keys", Some(&home), &Value::Null).await;
    assert_eq!(named.status, StatusCode::UNAUTHORIZED, "and its officer is nobody in a named vault");
}

#[tokio::test]
async fn a_request_with_two_hosts() {
    let town = two_vaults().await;
    let token = format!("Bearer {}", town.token(TENANT, ALICE));
    let uri = format!("https://{}/keys?api-version=7.4", host("two"));
    let request = Request::get(uri).header("host", host("one")).header("authorization", &token);
    let answer = town.raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, "VaultNotFound"));
    let request =
        Request::get("/keys?api-version=7.4").header("host", host("one")).header("host", host("two"));
    let answer = town.raw(request.header("authorization", &token).body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn path_traversal_and_odd_names_in_hosts_and_paths() {
    let town = two_vaults().await;
    for name in ["..", "../one", "one/../two", "%2e%2e", "one.two", "on", "vault", "one%00", "o_ne"] {
        let odd = host(name);
        if axum::http::HeaderValue::from_str(&odd).is_err() {
            continue;
        }
        let answer = town.send(&odd, "GET", "/keys", Some(&town.token(TENANT, ALICE)), &Value::Null).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, "VaultNotFound"), "{odd}");
    }
    for path in ["/vaults/..", "/vaults/..%2F..%2Fdata", "/vaults/one%2F..", "/vaults/%2e%2e"] {
        let answer = town.manage("PUT", path, &settings("one", &[])).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.body);
    }
    let folders = std::fs::read_dir(town.folder.dir.path().join("data/vaults")).unwrap().count();
    assert_eq!(folders, 2);
}

#[tokio::test]
async fn the_operator_of_vaults_reads_no_key_and_others_operate_no_vault() {
    let town = two_vaults().await;
    town.make_key("one", "k").await;
    let operator = town.home_token(&[OPERATOR]);
    for at in [DEFAULT.to_owned(), host("one")] {
        for (method, path) in
            [("GET", "/keys"), ("GET", "/keys/k/"), ("POST", "/keys/k/release"), ("GET", "/log")]
        {
            let refused = town.send(&at, method, path, Some(&operator), &json!({"target": "x"})).await;
            assert!([401, 403].contains(&refused.status.as_u16()), "{at} {path}: {}", refused.body);
        }
    }
    let officer = town.home_token(&[OFFICER]);
    for (method, path) in
        [("GET", "/casemate/vaults"), ("DELETE", "/casemate/vaults/one"), ("PUT", "/casemate/vaults/one")]
    {
        let refused = town.send(DEFAULT, method, path, Some(&officer), &settings("one", &[])).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    // A named vault's administrator does not manage vaults, and there are no such routes at a named vault.
    let administrator = town.alice("one", "GET", "/casemate/vaults", &Value::Null).await;
    assert!([403, 404].contains(&administrator.status.as_u16()), "{}", administrator.body);
}

#[tokio::test]
async fn a_name_taken_by_another_tenant_never_shows_the_earlier_keys() {
    let town = two_vaults().await;
    let modulus = town.make_key("one", "k").await;
    let backup = town.alice("one", "POST", "/keys/k/backup", &Value::Null).await.ok();
    let mut theirs = settings("one", &[assignment(BOB, ADMINISTRATOR, "/")]);
    theirs["tenantId"] = json!(OTHER_TENANT);
    theirs["resource"]["incarnation"] = json!("dddddddd-0000-0000-0000-000000000002");
    assert_eq!(town.manage("PUT", "/vaults/one", &theirs).await.code(), "VaultAlreadyExists");
    town.delete("one").await.ok();
    assert_eq!(town.manage("PUT", "/vaults/one", &theirs).await.code(), "VaultDeleted");
    assert_eq!(town.purge("one").await.status, StatusCode::NO_CONTENT);
    assert_eq!(town.manage("PUT", "/vaults/one", &theirs).await.status, StatusCode::CREATED);
    let bob = town.token(OTHER_TENANT, BOB);
    let send = async |method: &str, path: &str, body: Value| {
        town.send(&host("one"), method, path, Some(&bob), &body).await
    };
    assert_eq!(send("GET", "/keys", Value::Null).await.ok()["value"], json!([]));
    assert_eq!(send("GET", "/deletedkeys", Value::Null).await.ok()["value"], json!([]));
    assert_eq!(send("GET", "/keys/k/", Value::Null).await.status, StatusCode::NOT_FOUND);
    let restored = send("POST", "/keys/restore", json!({"value": backup["value"]})).await;
    assert_eq!(
        (restored.status.as_u16(), restored.target()),
        (400, "value"),
        "nor does an earlier backup open"
    );
    let body = json!({"kty": "RSA", "key_size": 2048});
    assert_ne!(send("POST", "/keys/k/create", body).await.ok()["key"]["n"], modulus);
    let alice = town.alice("one", "GET", "/keys/k/", &Value::Null).await;
    assert_eq!(alice.status, StatusCode::UNAUTHORIZED, "and the earlier tenant is locked out");
}

#[tokio::test]
async fn a_backup_of_one_vault_in_another() {
    let town = two_vaults().await;
    town.make_key("one", "k").await;
    let backup = town.alice("one", "POST", "/keys/k/backup", &Value::Null).await.ok();
    let refused = town.alice("two", "POST", "/keys/restore", &backup).await;
    assert_eq!((refused.status.as_u16(), refused.target()), (400, "value"), "{}", refused.body);
}

/// Who writes to the databases but has no master key puts a key of one vault, with all its rows, into another.
#[tokio::test]
async fn a_row_copied_from_one_vaults_database_into_anothers() {
    let town = two_vaults().await;
    town.make_key("one", "k").await;
    let (from, to) = (town.files("one").join("keys.sqlite"), town.files("two").join("keys.sqlite"));
    let mut connection =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(to)).await.unwrap();
    sqlx::query("ATTACH ? AS other").bind(from.to_str().unwrap()).execute(&mut connection).await.unwrap();
    for table in ["keys", "key_versions"] {
        let copy = format!("INSERT INTO {table} SELECT * FROM other.{table}");
        sqlx::query(sqlx::AssertSqlSafe(copy)).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    let encrypted = json!({"alg": "RSA-OAEP-256", "value": "AAAA"});
    let answer = town.alice("two", "POST", "/keys/k/decrypt", &encrypted).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "it does not open there: {}", answer.body);
    assert_eq!(answer.body["error"]["message"], "the stored key cannot be used");
}

#[tokio::test]
async fn a_database_put_in_the_place_of_another_vaults() {
    let town = two_vaults().await;
    town.make_key("one", "k").await;
    let (from, to) = (town.files("one"), town.files("two"));
    let Town { app, vaults, folder } = town;
    drop((app, vaults));
    closed(&from).await;
    closed(&to).await;
    for rest in ["keys.sqlite-wal", "keys.sqlite-shm"] {
        let _ = std::fs::remove_file(to.join(rest));
    }
    let mut connection =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(from.join("keys.sqlite")))
            .await
            .unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    std::fs::copy(from.join("keys.sqlite"), to.join("keys.sqlite")).unwrap();
    let town = Town::open(folder).await;
    let answer = town.alice("two", "GET", "/keys/k/", &Value::Null).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", answer.body);
    town.alice("one", "GET", "/keys/k/", &Value::Null).await.ok();
}

/// Waits until nothing in this process has a file of the folder open: connections close after their vault is gone.
async fn closed(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_open = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file.starts_with(folder))
    };
    while is_open() {
        assert!(Instant::now() < deadline, "{} stays open", folder.display());
        tokio::task::yield_now().await;
    }
}
