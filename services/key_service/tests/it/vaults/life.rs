//! Made, shown, changed, deleted, recovered, purged.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::vaults::{ADMINISTRATOR, ALICE, BOB, TENANT, Town, assignment, host, settings};

fn administrator() -> Value {
    assignment(ALICE, ADMINISTRATOR, "/")
}

#[tokio::test]
async fn a_vault_that_the_control_plane_made_serves_azures_clients_at_its_own_host() {
    let town = Town::new().await;
    let made = town.manage("PUT", "/vaults/one", &settings("one", &[administrator()])).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(made.body["url"], "https://one.vault.casemate.test:8443");
    let challenge = town.send(&host("one"), "POST", "/keys/k/create", None, &Value::Null).await;
    assert_eq!(challenge.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        challenge.headers["www-authenticate"],
        format!(
            "Bearer authorization=\"https://login.casemate.test/{TENANT}\", resource=\"https://vault.casemate.test:8443\""
        )
    );
    let body = json!({"kty": "RSA", "key_size": 2048});
    let key = town.alice("one", "POST", "/keys/k/create", &body).await.ok();
    let kid = key["key"]["kid"].as_str().unwrap();
    assert!(kid.starts_with("https://one.vault.casemate.test:8443/keys/k/"), "{kid}");
    assert_eq!(key["attributes"]["recoverableDays"], 7);
    let town = town.restart().await;
    let read = town.alice("ONE", "GET", "/keys/k/", &Value::Null).await.ok();
    assert_eq!(read["key"], key["key"], "it opens after a restart, by its host in any case");
}

#[tokio::test]
async fn each_vault_has_a_log_of_its_own_which_says_who_was_given_what() {
    let town = Town::new().await;
    town.make("one", &[administrator()]).await;
    town.make("two", &[administrator()]).await;
    town.make_key("one", "k").await;
    let entries = town.alice("one", "GET", "/log?after=0", &Value::Null).await.ok();
    let operations: Vec<_> =
        entries.as_array().unwrap().iter().map(|entry| &entry["detail"]["operation"]).collect();
    assert_eq!(operations, ["setAccess", "create"]);
    assert_eq!(entries[0]["detail"]["access"]["roleAssignments"][0]["principalId"], ALICE);
    let others = town.alice("two", "GET", "/log?after=0", &Value::Null).await.ok();
    assert_eq!(others.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_same_settings_change_nothing_and_what_is_fixed_stays() {
    let town = Town::new().await;
    town.make("one", &[administrator()]).await;
    let same = settings("one", &[administrator()]);
    assert_eq!(town.manage("PUT", "/vaults/one", &same).await.status, StatusCode::OK);
    for (part, other) in [
        ("tenantId", json!("22222222-2222-2222-2222-222222222222")),
        ("kind", json!("managedHsm")),
        ("softDeleteRetentionInDays", json!(90)),
    ] {
        let mut changed = same.clone();
        changed[part] = other;
        let refused = town.manage("PUT", "/vaults/one", &changed).await;
        assert_eq!((refused.status.as_u16(), refused.target()), (400, part), "{}", refused.body);
    }
    let mut protected = same.clone();
    protected["purgeProtection"] = json!(true);
    assert_eq!(town.manage("PUT", "/vaults/one", &protected).await.status, StatusCode::OK);
    let taken_back = town.manage("PUT", "/vaults/one", &same).await;
    assert_eq!((taken_back.status.as_u16(), taken_back.target()), (400, "purgeProtection"));
    town.make_key("one", "k").await;
    town.alice("one", "DELETE", "/keys/k", &Value::Null).await.ok();
    let refused = town.alice("one", "DELETE", "/deletedkeys/k", &Value::Null).await;
    assert_eq!(refused.denial()["code"], "PurgeProtected", "it holds at once: {}", refused.body);
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_with_their_field() {
    let town = Town::new().await;
    let good = settings("one", &[administrator()]);
    let policies = |policies: Value| json!({"model": "accessPolicies", "policies": policies});
    for (part, value, target) in [
        ("tenantId", json!("tenant"), "tenantId"),
        ("resource", json!({"id": "x", "incarnation": ALICE}), "resource.id"),
        ("resource", json!({"id": "/subscriptions/s", "incarnation": "1"}), "resource.incarnation"),
        ("softDeleteRetentionInDays", json!(6), "softDeleteRetentionInDays"),
        ("sku", json!(""), "sku"),
        ("colour", json!("red"), "colour"),
        (
            "access",
            json!({"model": "roleAssignments", "assignments": [assignment("", ADMINISTRATOR, "/")]}),
            "access.assignments.principalId",
        ),
        (
            "access",
            json!({"model": "roleAssignments", "assignments": [assignment(ALICE, BOB, "/")]}),
            "access.assignments.roleDefinitionId",
        ),
        (
            "access",
            json!({"model": "roleAssignments", "assignments": [assignment(ALICE, ADMINISTRATOR, "")]}),
            "access.assignments.scope",
        ),
        (
            "access",
            json!({"model": "roleAssignments", "assignments": [assignment(ALICE, ADMINISTRATOR, "/keys/a/b")]}),
            "access.assignments.scope",
        ),
        ("access", policies(json!([{"objectId": ALICE, "keys": ["everything"]}])), "access.policies.keys"),
        (
            "access",
            policies(
                json!([{"objectId": ALICE, "keys": []}, {"objectId": ALICE.to_uppercase(), "keys": ["all"]}]),
            ),
            "access.policies",
        ),
    ] {
        let mut bad = good.clone();
        bad[part] = value;
        let refused = town.manage("PUT", "/vaults/one", &bad).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{part}: {}", refused.body);
        assert_eq!(refused.target(), target, "{}", refused.body);
    }
    for name in ["ab", "One", "1ne", "on--e", "one-", "a2345678901234567890123456"] {
        let refused = town.manage("PUT", &format!("/vaults/{name}"), &good).await;
        assert_eq!((refused.status.as_u16(), refused.target()), (400, "name"), "{name}");
    }
    let own = town.manage("PUT", "/vaults/keys", &settings("keys", &[])).await;
    assert_eq!(own.code(), "VaultAlreadyExists", "the default vault's host is taken");
    assert_eq!(town.manage("GET", "/vaults", &Value::Null).await.ok(), json!([]));
}

#[tokio::test]
async fn a_deleted_vault_answers_nobody_until_its_own_resource_recovers_it() {
    let town = Town::new().await;
    town.make("one", &[administrator()]).await;
    let modulus = town.make_key("one", "k").await;
    let wrong = "/vaults/one?incarnation=dddddddd-0000-0000-0000-000000000002";
    assert_eq!(town.manage("DELETE", wrong, &Value::Null).await.code(), "VaultAlreadyExists");
    let deleted = town.delete("one").await.ok();
    assert_eq!(deleted["deletion"]["scheduledPurgeDate"], town.now() + 7 * 86_400);
    let gone = town.alice("one", "GET", "/keys/k/", &Value::Null).await;
    let never = town.alice("never", "GET", "/keys/k/", &Value::Null).await;
    assert_eq!((gone.status.as_u16(), gone.code()), (404, "VaultNotFound"));
    assert_eq!(gone.body, never.body, "a stranger does not learn that there was one");
    assert_eq!(town.manage("GET", "/vaults/one", &Value::Null).await.status, StatusCode::NOT_FOUND);
    let again = town.manage("PUT", "/vaults/one", &settings("one", &[administrator()])).await;
    assert_eq!((again.status.as_u16(), again.code()), (409, "VaultDeleted"));
    let recover = async |group: &str| {
        let id = format!("/subscriptions/s/resourceGroups/{group}/providers/Microsoft.KeyVault/vaults/one");
        let resource = json!({"id": id, "incarnation": "dddddddd-0000-0000-0000-000000000002"});
        town.manage("POST", "/deletedvaults/one/recover", &resource).await
    };
    assert_eq!(recover("another").await.code(), "VaultAlreadyExists");
    assert_eq!(recover("rg").await.ok()["deletion"], Value::Null);
    assert_eq!(recover("rg").await.status, StatusCode::OK, "it can be repeated");
    let read = town.alice("one", "GET", "/keys/k/", &Value::Null).await.ok();
    assert_eq!(read["key"]["n"], modulus);
}

#[tokio::test]
async fn a_purged_vaults_files_are_gone_and_purge_protection_keeps_them() {
    let town = Town::new().await;
    town.make("one", &[administrator()]).await;
    town.make_key("one", "k").await;
    let files = town.files("one");
    assert_eq!(town.purge("one").await.status, StatusCode::NOT_FOUND, "a live vault is not purged");
    town.delete("one").await.ok();
    assert!(files.exists());
    assert_eq!(town.purge("one").await.status, StatusCode::NO_CONTENT);
    assert!(!files.exists());
    let mut protected = settings("two", &[administrator()]);
    protected["purgeProtection"] = json!(true);
    assert_eq!(town.manage("PUT", "/vaults/two", &protected).await.status, StatusCode::CREATED);
    town.delete("two").await.ok();
    let refused = town.purge("two").await;
    assert_eq!((refused.status.as_u16(), &refused.denial()["code"]), (403, &json!("PurgeProtected")));
    let files = town.files("two");
    town.folder.clock.fetch_add(7 * 86_400, Ordering::SeqCst);
    assert_eq!(key_service::vaults::upkeep::once(&town.vaults).await.unwrap(), 1, "its days are over");
    assert!(!files.exists());
    assert_eq!(town.manage("GET", "/deletedvaults", &Value::Null).await.ok(), json!([]));
}

#[tokio::test]
async fn a_purge_that_broke_off_is_finished_by_the_next_process() {
    let town = Town::new().await;
    town.make("one", &[administrator()]).await;
    town.delete("one").await.ok();
    let files = town.files("one");
    let database = town.folder.dir.path().join("data/keys.sqlite");
    let mut connection = connect(&database).await;
    sqlx::query("UPDATE vaults SET purging = 1").execute(&mut connection).await.unwrap();
    let town = town.restart().await;
    let recover = json!({"id": settings("one", &[])["resource"]["id"], "incarnation": ALICE});
    let refused = town.manage("POST", "/deletedvaults/one/recover", &recover).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "nothing brings it back");
    assert_eq!(key_service::vaults::upkeep::once(&town.vaults).await.unwrap(), 1);
    assert!(!files.exists());
    town.make("one", &[administrator()]).await;
}

async fn connect(path: &std::path::Path) -> sqlx::sqlite::SqliteConnection {
    use sqlx::Connection as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    sqlx::sqlite::SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test]
async fn a_managed_hsm_has_its_own_domain_roles_and_random_bytes() {
    let town = Town::new().await;
    let user = "21dbd100-6940-42c2-9190-5d6cb909625b";
    let mut pool = settings("pool", &[assignment(ALICE, user, "/"), assignment(BOB, ADMINISTRATOR, "/")]);
    pool["kind"] = json!("managedHsm");
    let made = town.manage("PUT", "/vaults/pool", &pool).await;
    assert_eq!(made.body["url"], "https://pool.managedhsm.casemate.test:8443", "{}", made.body);
    let at = "pool.managedhsm.casemate.test:8443";
    let token = |object| {
        town.token_with(TENANT, object, |claims| {
            claims["aud"] = json!("https://managedhsm.casemate.test:8443")
        })
    };
    let bytes = town.send(at, "POST", "/rng", Some(&token(ALICE)), &json!({"count": 8})).await.ok();
    assert_eq!(bytes["value"].as_str().unwrap().len(), 11);
    let vault_role = town.send(at, "GET", "/keys", Some(&token(BOB)), &Value::Null).await;
    assert_eq!(
        vault_role.denial()["code"],
        "ForbiddenByRbac",
        "a vault's role says nothing about a managed HSM"
    );
    let elsewhere = town.alice("pool", "GET", "/keys", &Value::Null).await;
    assert_eq!(elsewhere.code(), "VaultNotFound", "it is no vault");
}
