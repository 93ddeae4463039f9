//! Guest-state generations: never an older one, never two steps at once, for ever.

mod reset;
mod reset_of_moved_keys;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::issuer::attestation;
use crate::support::vault::{Answer, OTHER_VM, VM, Vault, platform_conditions};

async fn vault_with_key() -> Vault {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    vault
}

async fn present(vault: &Vault, generation: u64) -> Answer {
    vault.release("/keys/platform/release", &attestation().token(&vault.evidence(generation))).await
}

async fn accepted(vault: &Vault, generation: u64) {
    present(vault, generation).await.ok();
}

async fn refused(vault: &Vault, generation: u64, code: &str, expected: &str) {
    let answer = present(vault, generation).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let denial = answer.denial();
    assert_eq!((&denial["code"], &denial["expected"]), (&json!(code), &json!(expected)));
    assert_eq!(denial["actual"], generation.to_string());
}

#[tokio::test]
async fn a_vms_life_boots_crashes_and_stops() {
    let vault = vault_with_key().await;
    for generation in [0, 1, 1, 2, 2, 2, 3] {
        accepted(&vault, generation).await;
    }
}

#[tokio::test]
async fn an_older_guest_state_is_refused() {
    let vault = vault_with_key().await;
    for generation in 0..=3 {
        accepted(&vault, generation).await;
    }
    for generation in 0..=2 {
        refused(&vault, generation, "RollbackRefused", "3 or 4").await;
    }
    accepted(&vault, 3).await;
}

#[tokio::test]
async fn an_older_guest_state_is_refused_after_a_restart() {
    let vault = vault_with_key().await;
    for generation in 0..=2 {
        accepted(&vault, generation).await;
    }
    let vault = vault.restart().await;
    refused(&vault, 1, "RollbackRefused", "2 or 3").await;
    accepted(&vault, 2).await;
}

#[tokio::test]
async fn a_generation_that_was_never_released_is_refused() {
    let vault = vault_with_key().await;
    refused(&vault, 2, "GenerationAhead", "0 or 1").await;
    refused(&vault, u64::MAX, "GenerationAhead", "0 or 1").await;
    accepted(&vault, 1).await;
    refused(&vault, 3, "GenerationAhead", "1 or 2").await;
}

#[tokio::test]
async fn two_vms_of_one_key_have_generations_of_their_own() {
    let vault = Vault::new().await;
    let development = json!([{"claim": "x-casemate-trust-root", "equals": "development"}]);
    vault.exportable("platform", development).await;
    for generation in 0..=2 {
        accepted(&vault, generation).await;
    }
    let mut other = vault.evidence(0);
    other["x-ms-inittime"]["vmId"] = OTHER_VM.into();
    other["x-ms-runtime"]["guest-state"]["vm-id"] = OTHER_VM.into();
    vault.release("/keys/platform/release", &attestation().token(&other)).await.ok();
    refused(&vault, 0, "RollbackRefused", "2 or 3").await;
}

/// The host writes the launch document: another spelling of the VM's id must not open a second record.
#[tokio::test]
async fn a_rollback_behind_another_spelling_of_the_vms_id() {
    let vault = Vault::new().await;
    let development = json!([{"claim": "x-casemate-trust-root", "equals": "development"}]);
    vault.exportable("platform", development).await;
    for generation in 0..=2 {
        accepted(&vault, generation).await;
    }
    for spelling in [VM.to_lowercase(), VM.replace('-', ""), format!("{{{VM}}}"), format!("urn:uuid:{VM}")] {
        let mut claims = vault.evidence(0);
        claims["x-ms-inittime"]["vmId"] = spelling.clone().into();
        claims["x-ms-runtime"]["guest-state"]["vm-id"] = spelling.into();
        let answer = vault.release("/keys/platform/release", &attestation().token(&claims)).await;
        assert_eq!(answer.denial()["code"], "RollbackRefused", "{}", answer.body);
    }
}

#[tokio::test]
async fn a_token_that_hides_the_generation_from_a_key_that_has_released_some() {
    let vault = vault_with_key().await;
    let hidden = |vault: &Vault| -> Value {
        let mut claims = vault.evidence(0);
        claims["x-ms-runtime"].as_object_mut().unwrap().remove("guest-state");
        claims
    };
    // A workload's key that has never released a guest state.
    vault.exportable("workload", platform_conditions()).await;
    vault.release("/keys/workload/release", &attestation().token(&hidden(&vault))).await.ok();
    accepted(&vault, 0).await;
    let answer = vault.release("/keys/platform/release", &attestation().token(&hidden(&vault))).await;
    assert_eq!(answer.denial()["code"], "GuestStateMissing", "{}", answer.body);
}

#[tokio::test]
async fn a_new_version_of_the_key_does_not_forget_the_generation() {
    let vault = vault_with_key().await;
    for generation in 0..=2 {
        accepted(&vault, generation).await;
    }
    vault.exportable("Platform", platform_conditions()).await;
    refused(&vault, 1, "RollbackRefused", "2 or 3").await;
}

/// Many releases at once, in no order: what is released is a walk of single steps, whatever wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_in_parallel_never_skip_a_generation() {
    let vault = std::sync::Arc::new(vault_with_key().await);
    accepted(&vault, 0).await;
    let tasks: Vec<_> = (0..48)
        .map(|number| {
            let vault = vault.clone();
            tokio::spawn(async move { present(&vault, number * 7 % 6).await })
        })
        .collect();
    for task in tasks {
        let answer = task.await.unwrap();
        assert!([StatusCode::OK, StatusCode::FORBIDDEN].contains(&answer.status), "{}", answer.body);
    }
    for pair in released(&vault).await.windows(2) {
        assert!(pair[1] == pair[0] || pair[1] == pair[0] + 1, "{pair:?}");
    }
}

/// Two releases of the same step at once: the generation moves by one, not by two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_releases_of_the_same_step_move_the_generation_once() {
    let vault = std::sync::Arc::new(vault_with_key().await);
    accepted(&vault, 0).await;
    for step in 1..=10 {
        let twin = || {
            let vault = vault.clone();
            tokio::spawn(async move { present(&vault, step).await.status })
        };
        let (first, second) = (twin(), twin());
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (StatusCode::OK, StatusCode::OK));
        refused(&vault, step + 2, "GenerationAhead", &format!("{step} or {}", step + 1)).await;
        assert_eq!(released(&vault).await.last(), Some(&step));
    }
}

/// One token, many requests at once: one key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_presented_in_parallel_releases_once() {
    let vault = std::sync::Arc::new(vault_with_key().await);
    let token = attestation().token(&vault.evidence(0));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (vault, token) = (vault.clone(), token.clone());
            tokio::spawn(async move { vault.release("/keys/platform/release", &token).await.status })
        })
        .collect();
    let mut released = 0;
    for task in tasks {
        released += usize::from(task.await.unwrap() == StatusCode::OK);
    }
    assert_eq!(released, 1);
}

async fn released(vault: &Vault) -> Vec<u64> {
    let log = vault.log().await;
    log.iter()
        .filter(|entry| entry.decision == public_api::decision_log::Decision::Released)
        .map(|entry| entry.detail["generation"].as_u64().unwrap())
        .collect()
}
