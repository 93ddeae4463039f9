//! What keys in the token do: all that sealed keys do, and which keys live there.

use key_service::reconcile;
use serde_json::{Value, json};

use super::token;
use crate::support::issuer::attestation;
use crate::support::softhsm::{again, with_token, with_token_as};
use crate::support::vault::{Folder, Vault, platform_conditions, policy};

/// The tests of sealed keys, word for word, on vaults whose every key lives in the token.
#[test]
fn the_tests_of_sealed_keys_hold_for_keys_in_a_token() {
    let files = ["operations::", "import::", "release::", "rotation::", "types::", "generations::"];
    let arguments =
        [&files[..], &["--skip", "hsm::", "--skip", "histories::", "--test-threads", "2"]].concat();
    let said = again(("", "all_keys = true\ntimeout_seconds = 120"), &arguments);
    let passed = said.lines().filter(|line| line.starts_with("test ") && line.ends_with("... ok")).count();
    assert!(passed >= 40, "{said}");
}

#[test]
fn keys_of_hsm_types_live_in_the_token_and_others_do_not() {
    with_token_as(("", "all_keys = false"), async |_| {
        let vault = Vault::new().await;
        let session = token::session();
        for (count, kty) in ["EC", "RSA", "oct"].into_iter().enumerate() {
            let sealed =
                vault.officer("POST", &format!("/keys/{kty}/create"), &json!({"kty": kty})).await.ok();
            assert_eq!(sealed["attributes"].get("hsmPlatform"), None, "{kty}");
            let kty = format!("{kty}-HSM");
            let held = vault.officer("POST", &format!("/keys/{kty}/create"), &json!({"kty": kty})).await.ok();
            assert_eq!(held["attributes"]["hsmPlatform"], "SoftHSM project SoftHSM v2");
            assert_eq!(token::states(&session), vec!["kept"; count + 1]);
        }
        let list = vault.get("/keys").await.ok();
        let platforms = list["value"].as_array().unwrap().iter();
        assert_eq!(platforms.filter(|key| key["attributes"]["hsmPlatform"].is_string()).count(), 3);
        vault.officer("POST", "/keys/EC-HSM/rotate", &Value::Null).await.ok();
        assert_eq!(token::objects(&session).len(), 4, "a renewed key lives where the one before it does");
    });
}

#[test]
fn a_restart_finds_every_key_again_and_a_policy_can_be_changed() {
    with_token(async |_| {
        let vault = Vault::new().await;
        vault.exportable("platform", json!([{"claim": "c", "equals": "other"}])).await;
        let refused = vault.release("/keys/platform/release", &attestation().token(&vault.evidence(0))).await;
        assert_eq!(refused.denial()["code"], "ReleasePolicyNotMet");
        let body = json!({"release_policy": {"data": policy(&platform_conditions())}});
        vault.officer("PATCH", "/keys/platform/", &body).await.ok();
        let vault = vault.restart().await;
        vault.release("/keys/platform/release", &attestation().token(&vault.evidence(0))).await.ok();
    });
}

#[test]
fn a_purged_key_is_destroyed_in_the_token_on_demand_and_when_its_time_is_over() {
    with_token(async |_| {
        let vault = Vault::new().await;
        let session = token::session();
        for name in ["a", "b", "c"] {
            let path = format!("/keys/{name}/create");
            vault.officer("POST", &path, &json!({"kty": "EC-HSM"})).await.ok();
            vault.officer("POST", &path, &json!({"kty": "EC-HSM"})).await.ok();
        }
        vault.officer("DELETE", "/keys/a", &Value::Null).await.ok();
        vault.officer("DELETE", "/keys/b", &Value::Null).await.ok();
        assert_eq!(token::objects(&session).len(), 6, "what can be recovered is there");
        let purged = vault.officer("DELETE", "/deletedkeys/a", &Value::Null).await;
        assert_eq!(purged.status, 204);
        assert_eq!(token::objects(&session).len(), 4);
        vault.set_clock(vault.now() + 91 * 86_400);
        assert_eq!(reconcile::prune::once(&vault.state).await.unwrap(), 1);
        assert_eq!(token::states(&session), ["kept", "kept"]);
        assert_eq!(vault.officer("DELETE", "/deletedkeys/c", &Value::Null).await.status, 404);
    });
}

#[test]
fn a_backup_takes_no_key_out_of_the_token() {
    with_token(async |_| {
        let vault = Vault::new().await;
        vault.exportable("platform", platform_conditions()).await;
        let refused = vault.officer("POST", "/keys/platform/backup", &Value::Null).await;
        assert_eq!(refused.status, 403);
        assert_eq!(refused.denial()["code"], "HsmKeyNotBackedUp");
        for part in ["claim", "expected", "actual", "rule", "remedy"] {
            assert!(refused.denial()[part].as_str().is_some_and(|text| !text.is_empty()), "{part}");
        }
    });
}

/// Two vaults on one token: neither counts the other's keys among its own, so neither sweep touches them.
#[test]
fn vaults_that_share_a_token_leave_one_another_alone() {
    with_token(async |_| {
        let (one, two) = (Folder::new().open().await, Folder::new().open().await);
        for vault in [&one, &two] {
            vault.officer("POST", "/keys/k/create", &json!({"kty": "EC-HSM"})).await.ok();
        }
        one.set_clock(one.now() + 9 * 86_400);
        let swept = reconcile::sweep::once(&one.state).await.unwrap();
        assert_eq!((swept.objects, swept.destroyed.len(), swept.unknown.len()), (1, 0, 0));
        assert_eq!(token::objects(&token::session()).len(), 2);
    });
}
