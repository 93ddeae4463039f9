//! A VM's newest generation is put back: what gets in then, what stays out, and who may not.

use std::sync::Arc;

use axum::http::StatusCode;
use public_api::decision_log::Decision;
use serde_json::{Value, json};

use super::{accepted, present, refused, vault_with_key};
use crate::support::issuer::attestation;
use crate::support::vault::{Answer, OFFICER, OTHER_VM, RELEASE_USER, USER, VM, Vault};

async fn reset_at(vault: &Vault, path: &str, from: u64, to: u64) -> Answer {
    vault.officer("PUT", path, &json!({"from": from, "to": to})).await
}

pub(super) async fn reset(vault: &Vault, name: &str, from: u64, to: u64) -> Answer {
    reset_at(vault, &format!("/keys/{name}/generations/{VM}"), from, to).await
}

pub(super) async fn listed(vault: &Vault, name: &str) -> Value {
    vault.get(&format!("/keys/{name}/generations")).await.ok()["value"].clone()
}

pub(super) fn only(generation: u64) -> Value {
    json!([{"vmId": VM, "generation": generation}])
}

/// A vault whose key has released generations 0 to `last`.
async fn vault_at(last: u64) -> Vault {
    let vault = vault_with_key().await;
    for generation in 0..=last {
        accepted(&vault, generation).await;
    }
    vault
}

/// The reset is refused in five parts, the refusal is on record, and nothing was put back.
pub(super) async fn not_reset(
    vault: &Vault,
    answer: &Answer,
    (status, code, claim): (StatusCode, &str, &str),
) {
    assert_eq!(answer.status, status, "{}", answer.body);
    let denial = answer.denial();
    assert_eq!((&denial["code"], &denial["claim"]), (&json!(code), &json!(claim)), "{denial}");
    for part in ["expected", "actual", "rule", "remedy"] {
        assert_ne!(denial[part], "", "{part}");
    }
    let log = vault.log().await;
    let logged = log.last().unwrap();
    assert_eq!(
        (logged.decision, &logged.detail["operation"]),
        (Decision::Refused, &json!("resetGeneration"))
    );
    assert_eq!(serde_json::to_value(&logged.denial).unwrap(), *denial);
}

#[tokio::test]
async fn a_restored_state_gets_its_key_and_the_next_ones_go_on_from_there() {
    let vault = vault_at(5).await;
    refused(&vault, 2, "RollbackRefused", "5 or 6").await;
    let answer = reset(&vault, "platform", 5, 2).await.ok();
    assert_eq!(answer, json!({"vmId": VM, "generation": 2, "keys": ["platform"]}));
    refused(&vault, 0, "RollbackRefused", "2 or 3").await;
    refused(&vault, 1, "RollbackRefused", "2 or 3").await;
    refused(&vault, 4, "GenerationAhead", "2 or 3").await;
    refused(&vault, 5, "GenerationAhead", "2 or 3").await;
    for generation in [2, 3, 3, 4] {
        accepted(&vault, generation).await;
    }
    refused(&vault, 3, "RollbackRefused", "4 or 5").await;
    assert_eq!(listed(&vault, "platform").await, only(4));
}

#[tokio::test]
async fn a_reset_outlasts_a_restart_and_is_on_record() {
    let vault = vault_at(3).await;
    let before = vault.log().await.len();
    reset(&vault, "PLATFORM", 3, 0).await.ok();
    let log = vault.log().await;
    let entry = log.last().unwrap();
    assert_eq!((log.len(), entry.decision), (before + 1, Decision::PolicyChanged));
    assert!(entry.subject.ends_with("/keys/platform"), "{}", entry.subject);
    let expected = json!({
        "operation": "resetGeneration", "caller": "app-1", "vm": VM, "from": 3, "to": 0, "keys": ["platform"],
    });
    assert_eq!(entry.detail, expected);
    let vault = vault.restart().await;
    assert_eq!(listed(&vault, "platform").await, only(0));
    refused(&vault, 2, "GenerationAhead", "0 or 1").await;
    accepted(&vault, 0).await;
}

#[tokio::test]
async fn a_key_that_released_nothing_lists_nothing_and_one_that_is_not_there_is_not_found() {
    let vault = vault_with_key().await;
    assert_eq!(listed(&vault, "platform").await, json!([]));
    accepted(&vault, 1).await;
    assert_eq!(listed(&vault, "Platform").await, only(1));
    vault.officer("DELETE", "/keys/platform", &Value::Null).await.ok();
    for name in ["platform", "none"] {
        let list = vault.get(&format!("/keys/{name}/generations")).await;
        assert_eq!((list.status, list.code()), (StatusCode::NOT_FOUND, "KeyNotFound"), "{name}");
        let answer = reset(&vault, name, 1, 0).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "KeyNotFound"), "{name}");
    }
    vault.officer("POST", "/deletedkeys/platform/recover", &Value::Null).await.ok();
    assert_eq!(listed(&vault, "platform").await, only(1));
}

#[tokio::test]
async fn a_release_user_or_a_crypto_user_who_resets() {
    let vault = vault_at(3).await;
    let path = format!("/keys/platform/generations/{VM}");
    let body = json!({"from": 3, "to": 1}).to_string();
    for roles in [&[RELEASE_USER][..], &[USER], &[RELEASE_USER, USER], &[]] {
        let answer = vault.send("PUT", &path, Some(&vault.caller(roles)), body.clone()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{roles:?}: {}", answer.body);
        assert_eq!(
            (&answer.denial()["code"], &answer.denial()["expected"]),
            (&json!("RoleMissing"), &json!(OFFICER))
        );
        assert_eq!(vault.log().await.last().unwrap().decision, Decision::Refused);
    }
    let evidence = attestation().token(&vault.evidence(3));
    assert_eq!(vault.send("PUT", &path, Some(&evidence), body).await.status, StatusCode::UNAUTHORIZED);
    refused(&vault, 1, "RollbackRefused", "3 or 4").await;
}

#[tokio::test]
async fn a_reset_from_what_no_longer_stands_there() {
    let vault = vault_at(3).await;
    accepted(&vault, 4).await;
    for stale in [3, 5, u64::MAX] {
        let answer = reset(&vault, "platform", stale, 1).await;
        not_reset(&vault, &answer, (StatusCode::CONFLICT, "GenerationMoved", "from")).await;
        assert_eq!(
            (&answer.denial()["expected"], &answer.denial()["actual"]),
            (&json!("4"), &json!(stale.to_string()))
        );
    }
    assert_eq!(listed(&vault, "platform").await, only(4));
}

#[tokio::test]
async fn a_reset_that_moves_a_generation_on() {
    let vault = vault_at(3).await;
    for to in [3, 4, i64::MAX as u64, u64::MAX] {
        let answer = reset(&vault, "platform", 3, to).await;
        not_reset(&vault, &answer, (StatusCode::BAD_REQUEST, "GenerationNotLower", "to")).await;
    }
    refused(&vault, 5, "GenerationAhead", "3 or 4").await;
}

#[tokio::test]
async fn a_reset_that_says_more_or_less_than_from_and_to() {
    let vault = vault_at(2).await;
    let path = format!("/keys/platform/generations/{VM}");
    for (body, target) in [
        (json!({"from": 2, "to": 1, "force": true}), "force"),
        (json!({"from": 2, "to": 1, "vmId": OTHER_VM}), "vmId"),
        (json!({"to": 1}), "body"),
        (json!({"from": 2}), "body"),
        (json!({"from": 2, "to": -1}), "to"),
        (json!({"from": 2, "to": 1.5}), "to"),
        (json!({"from": "2", "to": 1}), "from"),
        (json!({"from": null, "to": 1}), "from"),
    ] {
        let answer = vault.officer("PUT", &path, &body).await;
        assert_eq!(
            (answer.status, answer.target()),
            (StatusCode::BAD_REQUEST, target),
            "{body}: {}",
            answer.body
        );
    }
    for vm in ["all", "*", "0", "00000000"] {
        let answer = reset_at(&vault, &format!("/keys/platform/generations/{vm}"), 2, 1).await;
        assert_eq!(
            (answer.status, answer.target()),
            (StatusCode::BAD_REQUEST, "vmId"),
            "{vm}: {}",
            answer.body
        );
    }
    assert_eq!(listed(&vault, "platform").await, only(2));
}

/// Of another VM under the same key, and of the same VM under another key.
#[tokio::test]
async fn a_reset_of_one_vm_under_one_key_touches_no_other() {
    let vault = Vault::new().await;
    let development = json!([{"claim": "x-casemate-trust-root", "equals": "development"}]);
    for name in ["platform", "other", "unused"] {
        vault.exportable(name, development.clone()).await;
    }
    for generation in 0..=3 {
        for (key, vm) in [("platform", VM), ("platform", OTHER_VM), ("other", VM)] {
            let mut claims = vault.evidence(generation);
            claims["x-ms-inittime"]["vmId"] = vm.into();
            claims["x-ms-runtime"]["guest-state"]["vm-id"] = vm.into();
            vault.release(&format!("/keys/{key}/release"), &attestation().token(&claims)).await.ok();
        }
    }
    let answer = reset(&vault, "unused", 3, 1).await;
    not_reset(&vault, &answer, (StatusCode::NOT_FOUND, "GenerationUnknown", "vmId")).await;
    let stranger = "/keys/platform/generations/BBBBBBBB-1111-4222-8333-444455556666";
    let answer = reset_at(&vault, stranger, 3, 1).await;
    not_reset(&vault, &answer, (StatusCode::NOT_FOUND, "GenerationUnknown", "vmId")).await;
    // However the id is spelled, it is the one VM.
    let spelled = format!("/keys/platform/generations/{}", VM.to_lowercase().replace('-', ""));
    assert_eq!(reset_at(&vault, &spelled, 3, 1).await.ok()["vmId"], VM);
    let expected = json!([{"vmId": VM, "generation": 1}, {"vmId": OTHER_VM, "generation": 3}]);
    assert_eq!(listed(&vault, "platform").await, expected);
    assert_eq!(listed(&vault, "other").await, only(3));
}

#[tokio::test]
async fn a_token_of_the_old_state_that_was_used_before_the_reset() {
    let vault = vault_with_key().await;
    let tokens: Vec<String> = (0..=3).map(|number| attestation().token(&vault.evidence(number))).collect();
    for token in &tokens {
        vault.release("/keys/platform/release", token).await.ok();
    }
    reset(&vault, "platform", 3, 1).await.ok();
    for token in &tokens {
        let answer = vault.release("/keys/platform/release", token).await;
        assert_eq!(answer.denial()["code"], "TokenReplayed", "{}", answer.body);
    }
    accepted(&vault, 1).await;
}

/// Whoever comes second finds another generation than the one it was made for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_races_a_release_wins_or_is_refused() {
    let vault = Arc::new(vault_at(1).await);
    let mut last = 1;
    for _ in 0..12 {
        let releasing = {
            let vault = vault.clone();
            tokio::spawn(async move { present(&vault, last + 1).await })
        };
        let resetting = {
            let vault = vault.clone();
            tokio::spawn(async move { reset(&vault, "platform", last, last - 1).await })
        };
        let (release, back) = (releasing.await.unwrap(), resetting.await.unwrap());
        last = match (release.status, back.status) {
            (StatusCode::OK, StatusCode::CONFLICT) => last + 1,
            (StatusCode::FORBIDDEN, StatusCode::OK) => last - 1,
            other => panic!("{other:?}: {} {}", release.body, back.body),
        };
        assert_eq!(listed(&vault, "platform").await, only(last));
        if last == 0 {
            accepted(&vault, 1).await;
            last = 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_resets_at_once_from_the_same_generation_one_happens() {
    let vault = Arc::new(vault_at(4).await);
    let tasks: Vec<_> = (0..4)
        .map(|to| {
            let vault = vault.clone();
            tokio::spawn(async move { (to, reset(&vault, "platform", 4, to).await.status) })
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (to, StatusCode::OK) => done.push(to),
            (_, status) => assert_eq!(status, StatusCode::CONFLICT),
        }
    }
    assert_eq!(done.len(), 1);
    assert_eq!(listed(&vault, "platform").await, only(done[0]));
}
