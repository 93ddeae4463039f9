//! Creating, reading, changing, deleting keys; wrapping and unwrapping.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::support::issuer::{attestation, decoded, encoded};
use crate::support::vault::{Answer, BASE, OFFICER, Vault, platform_conditions, policy};

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

async fn create(vault: &Vault, body: Value) -> Answer {
    vault.officer("POST", "/keys/k/create", &body).await
}

#[tokio::test]
async fn keys_of_all_sizes_are_made_and_no_other() {
    let vault = Vault::new().await;
    for (bits, length) in [(2048, 342), (3072, 512), (4096, 683)] {
        let key = create(&vault, json!({"kty": "RSA-HSM", "key_size": bits})).await.ok();
        assert_eq!(key["key"]["n"].as_str().unwrap().len(), length);
        assert_eq!(key["key"]["kty"], "RSA-HSM");
    }
    for (field, value) in [
        ("key_size", json!(1024)),
        ("key_size", json!(2047)),
        ("key_size", json!(8192)),
        ("public_exponent", json!(3)),
        ("crv", json!("P-256")),
        ("key_ops", json!(["wrapKey", "export"])),
    ] {
        let mut body = json!({"kty": "RSA"});
        body[field] = value;
        let answer = create(&vault, body).await;
        assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, field), "{}", answer.body);
    }
}

#[tokio::test]
async fn other_key_types_are_refused_by_name() {
    let vault = Vault::new().await;
    for kty in ["OKP", "EC-", "okt", "", "RSA-", "RSA HSM"] {
        let answer = create(&vault, json!({"kty": kty})).await;
        assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, "kty"));
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("{kty:?}")), "{message}");
    }
}

#[tokio::test]
async fn names_are_letters_digits_and_dashes() {
    let vault = Vault::new().await;
    let long = "x".repeat(128);
    for name in ["a_b", "a.b", "%C3%A9", "a%20b", "a%2Fb", &long] {
        let answer = vault.officer("POST", &format!("/keys/{name}/create"), &json!({"kty": "RSA"})).await;
        assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, "name"), "{name}");
    }
    vault.officer("POST", &format!("/keys/{}/create", &long[1..]), &json!({"kty": "RSA"})).await.ok();
}

#[tokio::test]
async fn exportable_keys_follow_key_vaults_rules() {
    let vault = Vault::new().await;
    let data = policy(&platform_conditions());
    let release_policy = json!({"data": data});
    let exportable = json!({"exportable": true});
    let cases = [
        ("1004", json!({"kty": "RSA-HSM", "attributes": exportable})),
        ("1005", json!({"kty": "RSA-HSM", "release_policy": release_policy})),
        (
            "1005",
            json!({"kty": "RSA-HSM", "attributes": {"exportable": false}, "release_policy": release_policy}),
        ),
        ("1006", json!({"kty": "RSA", "attributes": exportable, "release_policy": release_policy})),
    ];
    for (code, body) in cases {
        let answer = create(&vault, body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("AKV.SKR.{code}: ")), "{body}: {message}");
    }
    let body = json!({"kty": "RSA-HSM", "attributes": exportable, "release_policy": release_policy});
    let old = vault.raw(request(&vault, "POST", "/keys/k/create?api-version=7.2", &body)).await;
    assert!(old.body["error"]["message"].as_str().unwrap().starts_with("AKV.SKR.1001: "), "{}", old.body);
    let created = create(&vault, body).await.ok();
    assert_eq!(created["release_policy"]["data"], data);
    assert_eq!(created["release_policy"]["contentType"], "application/json; charset=utf-8");
    assert_eq!(created["release_policy"]["immutable"], false);
}

fn request(vault: &Vault, method: &str, uri: &str, body: &Value) -> Request<Body> {
    let token = vault.caller(&[OFFICER]);
    let request =
        Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {token}"));
    request.body(Body::from(body.to_string())).unwrap()
}

#[tokio::test]
async fn a_release_policy_that_is_none_is_refused_with_its_place() {
    let vault = Vault::new().await;
    let reserved = json!([{"claim": "a", "notEquals": 1}]);
    for (data, part) in [
        (encoded("{}"), "missing field `version`"),
        (encoded(r#"{"version":"1.0.0","anyOf":[]}"#), "anyOf has no elements"),
        (policy(&reserved), "`notEquals` is reserved"),
        (encoded([0xFF, 0x00]), "cannot be read"),
    ] {
        let body = json!({
            "kty": "RSA-HSM", "attributes": {"exportable": true}, "release_policy": {"data": data},
        });
        let answer = create(&vault, body).await;
        assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, "release_policy.data"));
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn attributes_that_the_vault_sets_are_refused() {
    let vault = Vault::new().await;
    for (name, value) in [
        ("created", json!(1)),
        ("updated", json!(1)),
        ("recoverableDays", json!(7)),
        ("recoveryLevel", json!("Purgeable")),
    ] {
        let answer = create(&vault, json!({"kty": "RSA", "attributes": {name: value}})).await;
        assert_eq!(answer.target(), format!("attributes.{name}"));
    }
    let answer = create(&vault, json!({"kty": "RSA", "attributes": {"nbf": 10, "exp": 10}})).await;
    assert_eq!(answer.target(), "attributes.exp");
    let tags: serde_json::Map<String, Value> = (0..16).map(|n| (n.to_string(), "".into())).collect();
    assert_eq!(create(&vault, json!({"kty": "RSA", "tags": tags})).await.target(), "tags");
}

#[tokio::test]
async fn a_second_creation_makes_a_version_and_both_stay() {
    let vault = Vault::new().await;
    let first = create(&vault, json!({"kty": "RSA"})).await.ok();
    let second = create(&vault, json!({"kty": "RSA"})).await.ok();
    assert_eq!(vault.get("/keys/k").await.ok(), second);
    let path = first["key"]["kid"].as_str().unwrap().strip_prefix(BASE).unwrap();
    assert_eq!(vault.get(path).await.ok(), first);
    let versions = vault.get("/keys/k/versions").await.ok();
    let kids: Vec<_> = versions["value"].as_array().unwrap().iter().map(|item| item["kid"].clone()).collect();
    assert_eq!(kids, [first["key"]["kid"].clone(), second["key"]["kid"].clone()]);
}

#[tokio::test]
async fn lists_have_pages() {
    let vault = Vault::new().await;
    for name in ["c", "a", "B"] {
        vault.officer("POST", &format!("/keys/{name}/create"), &json!({"kty": "RSA"})).await.ok();
    }
    let mut next = format!("{BASE}/keys?maxresults=2");
    let mut kids = Vec::new();
    loop {
        let page = vault.get(next.strip_prefix(BASE).unwrap()).await.ok();
        let items = page["value"].as_array().unwrap();
        kids.extend(items.iter().map(|item| item["kid"].as_str().unwrap().to_owned()));
        assert!(items.iter().all(|item| item.get("key").is_none() && item.get("recoveryId").is_none()));
        match page["nextLink"].as_str() {
            Some(link) => next = link.replace("api-version=7.4&", ""),
            None => break,
        }
    }
    assert_eq!(kids, ["a", "B", "c"].map(|name| format!("{BASE}/keys/{name}")));
    assert_eq!(vault.get("/keys?maxresults=26").await.target(), "maxresults");
}

#[tokio::test]
async fn what_was_wrapped_unwraps_and_nothing_else_does() {
    let vault = Vault::new().await;
    create(&vault, json!({"kty": "RSA"})).await.ok();
    for alg in ["RSA-OAEP", "RSA-OAEP-256"] {
        let wrapped = vault
            .officer("POST", "/keys/k//wrapkey", &json!({"alg": alg, "value": encoded("secret")}))
            .await
            .ok();
        let value = &wrapped["value"];
        let unwrapped =
            vault.officer("POST", "/keys/k/unwrapkey", &json!({"alg": alg, "value": value})).await.ok();
        assert_eq!(unwrapped["value"], encoded("secret"));
        assert_eq!(unwrapped["kid"], wrapped["kid"]);
        let mut changed = decoded(value.as_str().unwrap());
        changed[100] ^= 1;
        let body = json!({"alg": alg, "value": encoded(changed)});
        let answer = vault.officer("POST", "/keys/k/unwrapkey", &body).await;
        assert_eq!((answer.status, answer.target()), (StatusCode::BAD_REQUEST, "value"));
    }
    let long = json!({"alg": "RSA-OAEP", "value": encoded([1; 215])});
    assert_eq!(vault.officer("POST", "/keys/k/wrapkey", &long).await.target(), "value");
    for alg in ["RSA-OAEP-512", "rsa-oaep", "A256KW"] {
        let body = json!({"alg": alg, "value": "AA"});
        assert_eq!(vault.officer("POST", "/keys/k/wrapkey", &body).await.target(), "alg");
    }
    let unwraps = vault.log().await.iter().filter(|entry| entry.detail["operation"] == "unwrapkey").count();
    assert_eq!(unwraps, 2, "each use of the private key is on record");
}

#[tokio::test]
async fn operations_that_a_key_does_not_permit() {
    let vault = Vault::new().await;
    create(&vault, json!({"kty": "RSA", "key_ops": ["wrapKey"]})).await.ok();
    let body = json!({"alg": "RSA-OAEP", "value": encoded("x")});
    let wrapped = vault.officer("POST", "/keys/k/wrapkey", &body).await.ok();
    let body = json!({"alg": "RSA-OAEP", "value": wrapped["value"]});
    let answer = vault.officer("POST", "/keys/k/unwrapkey", &body).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.denial()["code"], "KeyOperationForbidden");
    vault.officer("PATCH", "/keys/k", &json!({"key_ops": ["unwrapKey"]})).await.ok();
    vault.officer("POST", "/keys/k/unwrapkey", &body).await.ok();
    vault.officer("PATCH", "/keys/k", &json!({"attributes": {"enabled": false}})).await.ok();
    let answer = vault.officer("POST", "/keys/k/unwrapkey", &body).await;
    assert_eq!(answer.denial()["code"], "KeyDisabled");
    assert_eq!(vault.officer("PATCH", "/keys/k", &json!({"key_ops": []})).await.target(), "key_ops");
}

#[tokio::test]
async fn what_a_patch_leaves_out_stays() {
    let vault = Vault::new().await;
    let created =
        create(&vault, json!({"kty": "RSA", "tags": {"a": "1"}, "attributes": {"exp": 2_000_000_000}}))
            .await
            .ok();
    vault.set_clock(vault.now() + 10);
    let changed = vault.officer("PATCH", "/keys/k", &json!({"attributes": {"enabled": false}})).await.ok();
    let mut expected = created;
    expected["attributes"]["enabled"] = json!(false);
    expected["attributes"]["updated"] = json!(vault.now());
    assert_eq!(changed, expected);
    assert_eq!(vault.get("/keys/k").await.ok(), expected);
}

#[tokio::test]
async fn a_release_policy_changes_only_as_its_rules_allow() {
    let vault = Vault::new().await;
    let created = vault.exportable("k", json!([{"claim": "a", "equals": 1}])).await;
    let version = created["key"]["kid"].as_str().unwrap().strip_prefix(BASE).unwrap().to_owned();
    let policy = policy(&platform_conditions());
    let skr = async |path: &str, body: Value| {
        let answer = vault.officer("PATCH", path, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.body);
        answer.body["error"]["message"].as_str().unwrap()[..12].to_owned()
    };
    assert_eq!(skr(&version, json!({"release_policy": {"data": policy}})).await, "AKV.SKR.1016");
    assert_eq!(skr("/keys/k", json!({"attributes": {"exportable": false}})).await, "AKV.SKR.1003");
    let changed = vault
        .officer("PATCH", "/keys/k", &json!({"release_policy": {"data": policy, "immutable": true}}))
        .await
        .ok();
    assert_eq!(changed["release_policy"]["data"], policy);
    let log = vault.log().await;
    assert_eq!(log.last().unwrap().decision, public_api::decision_log::Decision::PolicyChanged);
    // The key opens under its new policy, and that policy is final.
    vault.release("/keys/k/release", &attestation().token(&vault.evidence(0))).await.ok();
    let other = json!({"release_policy": {"data": policy, "immutable": false}});
    assert_eq!(skr("/keys/k", other).await, "AKV.SKR.1020");
    create_plain(&vault).await;
    assert_eq!(skr("/keys/plain", json!({"release_policy": {"data": policy}})).await, "AKV.SKR.1005");
}

async fn create_plain(vault: &Vault) {
    vault.officer("POST", "/keys/plain/create", &json!({"kty": "RSA"})).await.ok();
}

/// A key that is being disabled stays disabled, whoever edits its tags at that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_in_parallel_do_not_undo_each_other() {
    let vault = std::sync::Arc::new(Vault::new().await);
    create(&vault, json!({"kty": "RSA"})).await.ok();
    for round in 0..10 {
        vault.officer("PATCH", "/keys/k", &json!({"attributes": {"enabled": true}})).await.ok();
        let bodies = [
            json!({"attributes": {"enabled": false}}),
            json!({"tags": {"round": round.to_string()}}),
            json!({"attributes": {"exp": 2_000_000_000 + round}}),
        ];
        let tasks = bodies.map(|body| {
            let vault = vault.clone();
            tokio::spawn(async move { vault.officer("PATCH", "/keys/k", &body).await.ok() })
        });
        for task in tasks {
            task.await.unwrap();
        }
        let key = vault.get("/keys/k").await.ok();
        assert_eq!(key["attributes"]["enabled"], false);
        assert_eq!(key["tags"]["round"], round.to_string());
        assert_eq!(key["attributes"]["exp"], 2_000_000_000 + round);
    }
}

#[tokio::test]
async fn a_deleted_key_is_recovered_or_purged() {
    let vault = Vault::new().await;
    let created = create(&vault, json!({"kty": "RSA"})).await.ok();
    let deleted = vault.officer("DELETE", "/keys/k", &Value::Null).await.ok();
    assert_eq!(deleted["key"], created["key"]);
    assert_eq!(deleted["recoveryId"], format!("{BASE}/deletedkeys/k"));
    assert_eq!(deleted["deletedDate"], vault.now());
    assert_eq!(deleted["scheduledPurgeDate"], vault.now() + 90 * 86_400);
    assert_eq!(vault.get("/keys/k").await.status, StatusCode::NOT_FOUND);
    assert_eq!(vault.get("/keys").await.ok()["value"], json!([]));
    assert_eq!(vault.get("/deletedkeys/k").await.ok(), deleted);
    let listed = vault.get("/deletedkeys").await.ok();
    assert_eq!(listed["value"][0]["recoveryId"], deleted["recoveryId"]);
    let answer = create(&vault, json!({"kty": "RSA"})).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, "Conflict"));
    assert_eq!(vault.officer("DELETE", "/keys/k", &Value::Null).await.status, StatusCode::NOT_FOUND);
    let recovered = vault.officer("POST", "/deletedkeys/k/recover", &Value::Null).await.ok();
    assert_eq!(recovered, created);
    assert_eq!(vault.get("/keys/k").await.ok(), created);
    for (method, path) in
        [("DELETE", "/deletedkeys/k"), ("POST", "/deletedkeys/k/recover"), ("GET", "/deletedkeys/k")]
    {
        assert_eq!(vault.officer(method, path, &Value::Null).await.status, StatusCode::NOT_FOUND, "{method}");
    }
    vault.officer("DELETE", "/keys/k", &Value::Null).await.ok();
    let purged = vault.officer("DELETE", "/deletedkeys/k", &Value::Null).await;
    assert_eq!(purged.status, StatusCode::NO_CONTENT);
    assert_eq!(vault.get("/deletedkeys/k").await.status, StatusCode::NOT_FOUND);
    create(&vault, json!({"kty": "RSA"})).await.ok();
}

#[tokio::test]
async fn a_deleted_key_goes_for_good_when_its_time_is_over() {
    let vault = Vault::new().await;
    create(&vault, json!({"kty": "RSA"})).await.ok();
    vault.officer("DELETE", "/keys/k", &Value::Null).await.ok();
    vault.set_clock(vault.now() + 90 * 86_400 - 1);
    assert_eq!(key_service::reconcile::prune::once(&vault.state).await.unwrap(), 0);
    vault.get("/deletedkeys/k").await.ok();
    vault.set_clock(vault.now() + 1);
    assert_eq!(key_service::reconcile::prune::once(&vault.state).await.unwrap(), 1);
    assert_eq!(vault.get("/deletedkeys/k").await.status, StatusCode::NOT_FOUND);
    assert_eq!(vault.log().await.last().unwrap().detail["operation"], "scheduledPurge");
}
