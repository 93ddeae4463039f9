//! Attacks on keys in the token: by who can write to the database, and by who has the PIN.

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use serde_json::json;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::token;
use crate::support::issuer::{attestation, encoded};
use crate::support::softhsm::{with_token, with_token_as};
use crate::support::vault::{Vault, platform_conditions, policy};

async fn execute(vault: &Vault, sql: &'static str) {
    let file = vault.folder.dir.path().join("data/keys.sqlite");
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let changed = sqlx::query(sql).execute(&mut connection).await.unwrap();
    assert!(changed.rows_affected() > 0, "{sql}");
    connection.close().await.unwrap();
}

async fn signs(vault: &Vault, name: &str) -> u16 {
    let body = json!({"alg": "ES256", "value": encoded([7; 32])});
    vault.officer("POST", &format!("/keys/{name}//sign"), &body).await.status.as_u16()
}

/// Who can write to the database gives one name another key's reference, policy, or a sealed key's bytes.
#[test]
fn references_swapped_in_the_database_open_nothing() {
    with_token_as(("", "all_keys = false"), async |_| {
        let mut vault = Vault::new().await;
        for (name, kty) in [("a", "EC-HSM"), ("b", "EC-HSM"), ("soft", "EC")] {
            vault.officer("POST", &format!("/keys/{name}/create"), &json!({"kty": kty})).await.ok();
            assert_eq!(signs(&vault, name).await, 200);
        }
        let takes = [
            "UPDATE key_versions SET sealed = (SELECT sealed FROM key_versions WHERE name = 'b') WHERE name = 'a'",
            "UPDATE key_versions SET sealed = (SELECT sealed FROM key_versions WHERE name = 'soft') WHERE name = 'a'",
            "UPDATE key_versions SET sealed = (SELECT sealed FROM key_versions WHERE name = 'b') WHERE name = 'soft'",
        ];
        for take in takes {
            execute(&vault, take).await;
            // A running service may still have the row of before, which is the right one.
            vault = vault.restart().await;
            let name = if take.ends_with("'soft'") { "soft" } else { "a" };
            assert_eq!(signs(&vault, name).await, 500, "{take}");
        }
        assert_eq!(signs(&vault, "b").await, 200);
    });
}

#[test]
fn a_policy_changed_in_the_database_releases_nothing_from_the_token() {
    with_token(async |_| {
        let vault = Vault::new().await;
        vault.exportable("strict", json!([{"claim": "x-casemate-trust-root", "equals": "amd"}])).await;
        vault.exportable("loose", platform_conditions()).await;
        execute(
            &vault,
            "UPDATE key_versions SET policy = (SELECT policy FROM key_versions WHERE name = 'loose') WHERE name = 'strict'",
        )
        .await;
        let answer = vault.release("/keys/strict/release", &attestation().token(&vault.evidence(0))).await;
        assert_eq!(answer.status, 500, "{:?}", answer.body);
    });
}

/// Who has the PIN asks the token for the secret of each key, in every way that PKCS#11 has.
#[test]
fn the_token_gives_no_secret_of_a_key_that_is_not_exportable() {
    with_token(async |_| {
        let vault = Vault::new().await;
        for kty in ["RSA-HSM", "EC-HSM", "oct-HSM"] {
            vault.officer("POST", &format!("/keys/{kty}/create"), &json!({"kty": kty})).await.ok();
        }
        let session = token::session();
        let kek = session
            .create_object(&[
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::KeyType(KeyType::AES),
                Attribute::Token(false),
                Attribute::Wrap(true),
                Attribute::Value(vec![1; 32]),
            ])
            .unwrap();
        let objects = token::objects(&session);
        assert_eq!(objects.len(), 3);
        for key in objects {
            for secret in [AttributeType::Value, AttributeType::PrivateExponent, AttributeType::Prime1] {
                let seen = session.get_attributes(key, &[secret]);
                assert!(seen.as_ref().map_or(true, Vec::is_empty), "{secret:?}");
            }
            for mechanism in [Mechanism::AesKeyWrapPad, Mechanism::AesKeyWrap] {
                let taken = session.wrap_key(&mechanism, kek, key);
                assert!(matches!(taken, Err(Error::Pkcs11(RvError::KeyUnextractable, _))), "{taken:?}");
            }
            for change in [Attribute::Extractable(true), Attribute::Sensitive(false)] {
                assert!(session.update_attributes(key, &[change]).is_err());
            }
            assert!(session.copy_object(key, &[Attribute::Extractable(true)]).is_err());
            let asked = [AttributeType::Private, AttributeType::Sensitive, AttributeType::Extractable];
            let wanted =
                [Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)];
            assert_eq!(session.get_attributes(key, &asked).unwrap(), wanted);
        }
    });
}

/// The attribute that lets a key out is on keys with a release policy, and their plain value is still not told.
#[test]
fn only_keys_with_a_release_policy_are_extractable_and_never_in_the_clear() {
    with_token(async |_| {
        let vault = Vault::new().await;
        for kty in ["RSA-HSM", "EC-HSM", "oct-HSM"] {
            let body = json!({
                "kty": kty, "attributes": {"exportable": true},
                "release_policy": {"data": policy(&platform_conditions())},
            });
            vault.officer("POST", &format!("/keys/{kty}/create"), &body).await.ok();
        }
        let session = token::session();
        for key in token::objects(&session) {
            let asked = [AttributeType::Private, AttributeType::Sensitive, AttributeType::Extractable];
            let wanted = [Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(true)];
            assert_eq!(session.get_attributes(key, &asked).unwrap(), wanted);
            for secret in [AttributeType::Value, AttributeType::PrivateExponent] {
                assert!(session.get_attributes(key, &[secret]).as_ref().map_or(true, Vec::is_empty));
            }
        }
    });
}
