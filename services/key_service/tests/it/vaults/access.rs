//! Who may do what: assignments at vault and key scope, access policies, and refusals that say what is missing.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::issuer::{attestation, encoded};
use crate::support::vault::{Answer, VM, evidence_at, platform_conditions, policy};
use crate::support::vaults::{
    ADMINISTRATOR, ALICE, BOB, OFFICER_ROLE, READER_ROLE, RELEASE_ROLE, TENANT, Town, USER_ROLE, assignment,
    host, settings,
};

/// A vault with the keys `a` and `b` where Bob has these assignments.
async fn town(bobs: &[(&str, &str)]) -> Town {
    let town = Town::new().await;
    let mut all = vec![assignment(ALICE, ADMINISTRATOR, "/")];
    all.extend(bobs.iter().map(|(role, scope)| assignment(BOB, role, scope)));
    town.make("one", &all).await;
    town.make_key("one", "a").await;
    town.make_key("one", "b").await;
    town
}

async fn bob(town: &Town, method: &str, path: &str, body: &Value) -> Answer {
    town.send(&host("one"), method, path, Some(&town.token(TENANT, BOB)), body).await
}

fn value() -> Value {
    json!({"alg": "RSA-OAEP-256", "value": encoded([7; 16])})
}

#[tokio::test]
async fn an_assignment_at_a_keys_scope_gives_neither_the_list_nor_another_key() {
    let town = town(&[(OFFICER_ROLE, "/keys/A")]).await;
    bob(&town, "GET", "/keys/a/", &Value::Null).await.ok();
    bob(&town, "POST", "/keys/a/encrypt", &value()).await.ok();
    bob(&town, "GET", "/keys/a/versions", &Value::Null).await.ok();
    for (method, path, body) in [
        ("GET", "/keys", Value::Null),
        ("GET", "/deletedkeys", Value::Null),
        ("GET", "/keys/b/", Value::Null),
        ("GET", "/keys/ab/", Value::Null),
        ("GET", "/keys/a%2F..%2Fb/", Value::Null),
        ("POST", "/keys/b/decrypt", value()),
        ("DELETE", "/keys/b", Value::Null),
        ("POST", "/keys/restore", json!({"value": ""})),
        ("GET", "/log", Value::Null),
        ("POST", "/keys/c/create", json!({"kty": "RSA"})),
    ] {
        let refused = bob(&town, method, path, &body).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}: {}", refused.body);
        assert_eq!(refused.denial()["code"], "ForbiddenByRbac", "{path}");
        assert_eq!(refused.denial()["actual"], "Key Vault Crypto Officer at /keys/A", "{path}");
    }
}

#[tokio::test]
async fn a_role_gives_what_azure_says_and_a_refusal_names_action_scope_and_remedy() {
    for (role, permitted, refused) in [
        (READER_ROLE, "/keys/a/", ("POST", "/keys/a/encrypt")),
        (USER_ROLE, "/keys", ("DELETE", "/keys/a")),
        (OFFICER_ROLE, "/keys/a/rotationpolicy", ("GET", "/log")),
    ] {
        let town = town(&[(role, "/")]).await;
        bob(&town, "GET", permitted, &Value::Null).await.ok();
        let (method, path) = refused;
        let answer = bob(&town, method, path, &value()).await;
        assert_eq!(answer.denial()["code"], "ForbiddenByRbac", "{role} {path}: {}", answer.body);
    }
    let town = town(&[(RELEASE_ROLE, "/keys/a")]).await;
    let denial = bob(&town, "GET", "/keys/b/", &Value::Null).await.body["error"]["denial"].clone();
    assert_eq!(denial["expected"], "a role with Microsoft.KeyVault/vaults/keys/read at /keys/b or above");
    assert_eq!(denial["actual"], "Key Vault Crypto Service Release User at /keys/a");
    let remedy = denial["remedy"].as_str().unwrap();
    assert!(remedy.contains(BOB) && remedy.ends_with("Microsoft.KeyVault/vaults/one/keys/b"), "{remedy}");
    let log = town.alice("one", "GET", "/log?after=0", &Value::Null).await.ok();
    let last = log.as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["denial"], &last["detail"]["object"]), (&denial, &json!(BOB)));
}

#[tokio::test]
async fn only_the_release_role_releases() {
    let town = town(&[(RELEASE_ROLE, "/keys/vm")]).await;
    let body = json!({
        "kty": "RSA-HSM", "key_size": 2048, "attributes": {"exportable": true},
        "release_policy": {"data": policy(&platform_conditions())},
    });
    town.alice("one", "POST", "/keys/vm/create", &body).await.ok();
    let release = async |object: &str| {
        let body = json!({"target": attestation().token(&evidence_at(town.now(), 0))});
        town.send(&host("one"), "POST", "/keys/vm/release", Some(&town.token(TENANT, object)), &body).await
    };
    let stranger = release("eeeeeeee-0000-0000-0000-00000000000e").await;
    assert_eq!(stranger.denial()["actual"], "no assignment");
    release(BOB).await.ok();
}

/// A vault whose key `vm` has released generations 0 to 2 of a VM to Bob, who has these assignments beside.
async fn town_with_a_vm(bobs: &[(&str, &str)]) -> Town {
    let town = town(&[&[(RELEASE_ROLE, "/keys/vm")], bobs].concat()).await;
    let body = json!({
        "kty": "RSA-HSM", "key_size": 2048, "attributes": {"exportable": true},
        "release_policy": {"data": policy(&platform_conditions())},
    });
    town.alice("one", "POST", "/keys/vm/create", &body).await.ok();
    for generation in 0..=2 {
        let body = json!({"target": attestation().token(&evidence_at(town.now(), generation))});
        bob(&town, "POST", "/keys/vm/release", &body).await.ok();
    }
    town
}

#[tokio::test]
async fn a_generation_is_reset_by_an_officer_of_that_key_in_that_vault() {
    let path = format!("/keys/vm/generations/{VM}");
    let back = json!({"from": 2, "to": 0});
    for bobs in [&[][..], &[(USER_ROLE, "/")], &[(READER_ROLE, "/")], &[(OFFICER_ROLE, "/keys/a")]] {
        let town = town_with_a_vm(bobs).await;
        let refused = bob(&town, "PUT", &path, &back).await;
        let denial = refused.denial();
        assert_eq!((refused.status, &denial["code"]), (StatusCode::FORBIDDEN, &json!("ForbiddenByRbac")));
        let action = "Microsoft.KeyVault/vaults/keys/generations/write/action";
        assert_eq!(denial["expected"], format!("a role with {action} at /keys/vm or above"));
        let listed = town.alice("one", "GET", "/keys/vm/generations", &Value::Null).await.ok();
        assert_eq!(listed["value"][0]["generation"], 2, "{bobs:?}");
    }
    let town = town_with_a_vm(&[(OFFICER_ROLE, "/keys/vm")]).await;
    // Whoever is an officer here is nobody in another tenant's vault, whose key has the same name.
    town.make("two", &[assignment(ALICE, ADMINISTRATOR, "/")]).await;
    town.make_key("two", "vm").await;
    let elsewhere = town.send(&host("two"), "PUT", &path, Some(&town.token(TENANT, BOB)), &back).await;
    assert_eq!(elsewhere.denial()["code"], "ForbiddenByRbac", "{}", elsewhere.body);
    let empty = town.alice("two", "PUT", &path, &back).await;
    assert_eq!(empty.denial()["code"], "GenerationUnknown", "{}", empty.body);
    bob(&town, "PUT", &path, &back).await.ok();
}

#[tokio::test]
async fn no_access_policy_resets_a_generation() {
    let town = town_with_a_vm(&[]).await;
    let mut changed = settings("one", &[]);
    let all = ["all", "purge", "release", "restore", "update"];
    changed["access"] = json!({"model": "accessPolicies", "policies": [{"objectId": ALICE, "keys": all}]});
    town.manage("PUT", "/vaults/one", &changed).await.ok();
    let path = format!("/keys/vm/generations/{VM}");
    let refused = town.alice("one", "PUT", &path, &json!({"from": 2, "to": 0})).await;
    let denial = refused.denial();
    assert_eq!(denial["code"], "ForbiddenByPolicy", "{}", refused.body);
    assert!(denial["remedy"].as_str().unwrap().starts_with("let role assignments decide"), "{denial}");
    let listed = town.alice("one", "GET", "/keys/vm/generations", &Value::Null).await.ok();
    assert_eq!(listed["value"][0]["generation"], 2);
}

#[tokio::test]
async fn a_changed_assignment_holds_at_once() {
    let town = town(&[]).await;
    assert_eq!(bob(&town, "GET", "/keys", &Value::Null).await.status, StatusCode::FORBIDDEN);
    let alice = assignment(ALICE, ADMINISTRATOR, "/");
    let given = settings("one", &[alice.clone(), assignment(BOB, READER_ROLE, "/")]);
    town.manage("PUT", "/vaults/one", &given).await.ok();
    bob(&town, "GET", "/keys", &Value::Null).await.ok();
    town.manage("PUT", "/vaults/one", &settings("one", &[alice])).await.ok();
    assert_eq!(bob(&town, "GET", "/keys", &Value::Null).await.status, StatusCode::FORBIDDEN);
    let town = town.restart().await;
    assert_eq!(bob(&town, "GET", "/keys", &Value::Null).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn access_policies_decide_alone_and_all_is_neither_purge_nor_release() {
    let town = town(&[(ADMINISTRATOR, "/")]).await;
    let mut changed = settings("one", &[]);
    changed["access"] = json!({"model": "accessPolicies", "policies": [
        {"objectId": ALICE, "keys": ["All"]}, {"objectId": BOB, "keys": ["get", "WRAPKEY"]},
    ]});
    town.manage("PUT", "/vaults/one", &changed).await.ok();
    bob(&town, "GET", "/keys/b/", &Value::Null).await.ok();
    bob(&town, "POST", "/keys/b/wrapkey", &value()).await.ok();
    let refused = bob(&town, "POST", "/keys/b/unwrapkey", &value()).await;
    let denial = refused.denial();
    assert_eq!((&denial["code"], &denial["actual"]), (&json!("ForbiddenByPolicy"), &json!("get, WRAPKEY")));
    assert_eq!(denial["expected"], "key permission unwrapKey");
    town.alice("one", "DELETE", "/keys/a", &Value::Null).await.ok();
    for (method, path) in [("DELETE", "/deletedkeys/a"), ("POST", "/keys/b/release"), ("GET", "/log")] {
        let refused = town.alice("one", method, path, &json!({"target": "x"})).await;
        assert_eq!(refused.denial()["code"], "ForbiddenByPolicy", "{path}: {}", refused.body);
    }
}
