//! Between an object in the token and its row in the database there is no transaction. The program is ended at each step
//! between the two, and what a later start finds is put right.

use std::sync::atomic::Ordering;

use key_service::reconcile::sweep;
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::token;
use crate::binary::{Service, caller, start_with, unix_now};
use crate::support::issuer::encoded;
use crate::support::softhsm::with_token;
use crate::support::vault::{Folder, OFFICER, Vault};

/// A service that ends without a word when it reaches `point`.
async fn crashing(folder: &Folder, point: &str) -> Service {
    let plan = folder.dir.path().join("plan");
    std::fs::create_dir_all(&plan).unwrap();
    std::fs::write(plan.join("crash-at"), format!("0 keys: {point}")).unwrap();
    start_with(folder, |command| _ = command.env("CASEMATE_FAULT_PLAN", &plan)).await
}

/// The status of the answer, if there is one.
async fn ask(service: &Service, method: &str, path: &str, body: &Value) -> Option<u16> {
    let url = format!("{}{path}?api-version=7.4", service.url);
    let request = service.client.request(method.parse().unwrap(), url).bearer_auth(caller(OFFICER));
    let request = if body.is_null() { request } else { request.body(body.to_string()) };
    Some(request.send().await.ok()?.status().as_u16())
}

/// Opens the crashed service's folder in this process, `seconds` later.
async fn later(folder: Folder, seconds: i64) -> Vault {
    folder.clock.store(unix_now() + seconds, Ordering::SeqCst);
    folder.open().await
}

async fn signs(vault: &Vault) -> u16 {
    let body = json!({"alg": "ES256", "value": encoded([7; 32])});
    vault.officer("POST", "/keys/k//sign", &body).await.status.as_u16()
}

/// An object without a row: another replica may be about to store it, so it is left alone for an hour.
#[test]
fn a_crash_between_object_and_row_leaves_an_object_that_is_destroyed_after_its_grace() {
    with_token(async |_| {
        let folder = Folder::new();
        let mut service = crashing(&folder, "before storing a key").await;
        assert_eq!(ask(&service, "POST", "/keys/k/create", &json!({"kty": "EC-HSM"})).await, None);
        assert!(!service.child.wait().unwrap().success());
        let session = token::session();
        assert_eq!(token::states(&session), ["made"]);
        let vault = later(folder, 60).await;
        let swept = sweep::once(&vault.state).await.unwrap();
        assert_eq!((swept.objects, swept.destroyed.len(), token::objects(&session).len()), (1, 0, 1));
        assert_eq!(vault.get("/keys/k/").await.status, 404);
        vault.set_clock(vault.now() + 3600);
        assert_eq!(sweep::once(&vault.state).await.unwrap().destroyed.len(), 1);
        assert!(token::objects(&session).is_empty());
    });
}

#[test]
fn a_crash_between_row_and_label_loses_no_key() {
    with_token(async |_| {
        let folder = Folder::new();
        let mut service = crashing(&folder, "after storing a key").await;
        assert_eq!(ask(&service, "POST", "/keys/k/create", &json!({"kty": "EC-HSM"})).await, None);
        assert!(!service.child.wait().unwrap().success());
        let session = token::session();
        assert_eq!(token::states(&session), ["made"]);
        let vault = later(folder, 9 * 3600).await;
        assert!(sweep::once(&vault.state).await.unwrap().destroyed.is_empty());
        assert_eq!(token::states(&session), ["kept"]);
        assert_eq!(signs(&vault).await, 200);
    });
}

async fn crashed_purge(folder: &Folder, point: &str) {
    let mut service = crashing(folder, point).await;
    assert_eq!(ask(&service, "POST", "/keys/k/create", &json!({"kty": "EC-HSM"})).await, Some(200));
    assert_eq!(ask(&service, "DELETE", "/keys/k", &Value::Null).await, Some(200));
    assert_eq!(ask(&service, "DELETE", "/deletedkeys/k", &Value::Null).await, None);
    assert!(!service.child.wait().unwrap().success());
}

#[test]
fn a_purge_that_crashed_before_its_row_can_be_taken_back() {
    with_token(async |_| {
        let folder = Folder::new();
        crashed_purge(&folder, "before purging a key").await;
        let session = token::session();
        assert_eq!(token::states(&session), ["gone"]);
        let vault = later(folder, 9 * 3600).await;
        assert!(sweep::once(&vault.state).await.unwrap().destroyed.is_empty(), "its row is there");
        vault.officer("POST", "/deletedkeys/k/recover", &Value::Null).await.ok();
        assert_eq!(token::states(&session), ["kept"]);
        assert_eq!(signs(&vault).await, 200);
    });
}

#[test]
fn a_purge_that_crashed_before_the_object_is_finished() {
    with_token(async |_| {
        let folder = Folder::new();
        crashed_purge(&folder, "after purging a key").await;
        let session = token::session();
        assert_eq!(token::states(&session), ["gone"]);
        let vault = later(folder, 1).await;
        assert_eq!(vault.get("/deletedkeys/k").await.status, 404);
        assert_eq!(sweep::once(&vault.state).await.unwrap().destroyed.len(), 1);
        assert!(token::objects(&session).is_empty());
    });
}

/// An older copy of the database knows fewer keys. Those that it does not know are told, and stay.
#[test]
fn an_older_copy_of_the_database_destroys_no_key() {
    with_token(async |_| {
        let vault = Vault::new().await;
        vault.officer("POST", "/keys/old/create", &json!({"kty": "EC-HSM"})).await.ok();
        let older = Folder::new();
        let (from, to) = (vault.folder.dir.path(), older.dir.path());
        std::fs::create_dir(to.join("data")).unwrap();
        std::fs::copy(from.join("master.key"), to.join("master.key")).unwrap();
        let options = SqliteConnectOptions::new().filename(from.join("data/keys.sqlite"));
        let mut database = SqliteConnection::connect_with(&options).await.unwrap();
        let copy = to.join("data/keys.sqlite").display().to_string();
        sqlx::query("VACUUM INTO ?").bind(copy).execute(&mut database).await.unwrap();
        database.close().await.unwrap();
        vault.officer("POST", "/keys/new/create", &json!({"kty": "EC-HSM"})).await.ok();
        let vault = later(older, 999 * 86_400).await;
        assert_eq!(vault.get("/keys/new/").await.status, 404);
        let swept = sweep::once(&vault.state).await.unwrap();
        assert_eq!((swept.objects, swept.destroyed.len(), swept.unknown.len()), (2, 0, 1));
        assert_eq!(token::objects(&token::session()).len(), 2);
    });
}
