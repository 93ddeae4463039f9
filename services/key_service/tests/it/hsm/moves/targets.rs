//! Which target may take a vault: one whose token takes its keys, or has them.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use key_service::reconcile::sweep;
use serde_json::json;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::ends::BEFORE;
use super::{
    closed, create, embedded, folder, in_token, into_token, is_whole, signs, small, without, wrapped,
};
use crate::binary::unix_now;
use crate::hsm::token;
use crate::support::issuer::attestation;
use crate::support::program::{dies_at, moving, run};
use crate::support::softhsm::{another_token, with_token, with_token_as};
use crate::support::vault::{Folder, platform_conditions};

/// No token, another token, and the same one for other keys.
fn other_targets(tokens: &Path, from: &Folder, to: &Folder) {
    run(&mut moving(&embedded(from), &embedded(to))).refuses("TargetChanged");
    another_token(tokens, "other");
    to.config(|text| text.replace("\"casemate-test\"", "\"other\"")).unwrap();
    run(&mut moving(&embedded(from), &to.dir.path().join("keys.toml"))).refuses("TargetChanged");
    to.config(|text| text.replace("all_keys = false", "all_keys = true")).unwrap();
    run(&mut moving(&embedded(from), &to.dir.path().join("keys.toml"))).refuses("TargetChanged");
}

/// The target's configuration is changed between two tries, before and after the source is left.
#[test]
fn a_vault_that_was_moved_into_a_token_comes_to_life_with_no_other_token() {
    with_token_as(("", "all_keys = false"), async |tokens| {
        let (from, to) = (small().await, folder());
        dies_at(&mut into_token(&from, &to), "a key of a move is in the token");
        run(&mut moving(&embedded(&from), &embedded(&to))).refuses("TargetChanged");
        dies_at(&mut into_token(&from, &to), "the source of a move is left");
        run(into_token(&from, &to).arg("--call-off")).refuses("MoveNotCalledOff");
        other_targets(tokens, &from, &to);
        run(&mut into_token(&from, &to)).json();
        signs(&to.open().await, "e", "ES256", 32).await;
    });
}

#[test]
fn a_key_that_the_token_cannot_take_is_refused_by_name_and_the_source_stays_a_vault() {
    // SoftHSM2 2.6.1 passes over the first name of such a list.
    let softhsm = "slots.mechanisms = -CKM_MD5,CKM_AES_CBC,CKM_AES_GCM,CKM_AES_KEY_WRAP";
    with_token_as((softhsm, "all_keys = false"), async |_| {
        let (from, to) = (small().await, folder());
        let said = run(&mut into_token(&from, &to));
        said.refuses("HsmKeyNotTaken");
        assert!(said.err.contains("keys/oct/") && said.err.contains("CKM_AES_CBC"), "{}", said.err);
        assert!(token::objects(&token::session()).is_empty());
        signs(&from.open_with(without).await, "e", "ES256", 32).await;
    });
}

#[test]
fn a_row_with_another_keys_public_part_ends_the_move_and_leaves_nothing_in_the_token() {
    with_token_as(("", "all_keys = true"), async |_| {
        let (from, to) = (small().await, folder());
        let file = from.dir.path().join("data/keys.sqlite");
        let mut database =
            SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
        let swap = "UPDATE key_versions SET point = (SELECT point FROM key_versions WHERE name = 'e')
                    WHERE name = 'sealed'";
        assert_eq!(sqlx::query(swap).execute(&mut database).await.unwrap().rows_affected(), 1);
        database.close().await.unwrap();
        run(&mut into_token(&from, &to)).refuses("PublicPartWrong");
        assert!(token::objects(&token::session()).is_empty());
        signs(&from.open_with(without).await, "e", "ES256", 32).await;
    });
}

/// The same token and another master key: the objects stay, their references and labels change.
#[test]
fn a_vault_whose_keys_lie_in_a_token_moves_to_another_master_key_and_database_with_that_token() {
    with_token(async |_| {
        let vault = folder().open().await;
        vault.exportable("platform", platform_conditions()).await;
        create(&vault, "oct", &json!({"kty": "oct-HSM", "key_size": 256})).await;
        create(&vault, "e", &json!({"kty": "EC"})).await;
        let (before, shown) = (wrapped(&vault).await, vault.get("/keys").await.ok());
        let (from, to) = (closed(vault), Folder::on_postgres());
        let session = token::session();
        let objects = token::objects(&session);
        let of_the_source = token::vaults(&session);
        // A request of the source that died leaves an object, and so it does under the new key.
        let orphan = token::plant(&session, &format!("casemate {} 1 made", of_the_source[0]));
        for point in BEFORE.into_iter().filter(|point| *point != "a key of a move is in the token") {
            dies_at(&mut moving(&in_token(&from), &in_token(&to)), point);
        }
        assert_eq!(token::vaults(&session)[..3], of_the_source, "the source can still be called back");
        dies_at(&mut moving(&in_token(&from), &in_token(&to)), "the keys of a move are kept");
        let said = run(&mut moving(&in_token(&from), &in_token(&to))).json();
        assert_eq!((&said["sealedAnew"], &said["versionsIntoToken"]), (&json!(true), &json!(0)));
        to.clock.store(unix_now(), Ordering::SeqCst);
        let vault = to.open().await;
        assert_eq!((wrapped(&vault).await, vault.get("/keys").await.ok()), (before, shown));
        signs(&vault, "e", "ES256", 32).await;
        let token = attestation().token(&vault.evidence(0));
        vault.release("/keys/platform/release", &token).await.ok();
        let session = token::session();
        assert!(token::vaults(&session).iter().all(|vault| *vault != of_the_source[0]));
        let swept = sweep::once(&vault.state).await.unwrap();
        assert_eq!((swept.objects, swept.destroyed, swept.missing), (4, vec![orphan], vec![]));
        assert_eq!(token::objects(&session), objects);
        is_whole(&vault.folder);
    });
}

#[test]
fn a_vault_whose_keys_lie_in_a_token_moves_to_no_target_without_that_token() {
    with_token(async |tokens| {
        let vault = folder().open().await;
        create(&vault, "e", &json!({"kty": "EC"})).await;
        create(&vault, "e", &json!({"kty": "EC"})).await;
        let (from, to) = (closed(vault), folder());
        let session = token::session();
        another_token(tokens, "other");
        let refused = |config: PathBuf, actual: &str| {
            let said = run(&mut moving(&in_token(&from), &config));
            said.refuses("HsmKeyNotMoved");
            assert!(said.err.contains("keys/e/") && said.err.contains(actual), "{}", said.err);
        };
        refused(embedded(&to), "no [hsm], and 2 of the vault's key versions");
        to.config(|text| text.replace("\"casemate-test\"", "\"other\"")).unwrap();
        refused(to.dir.path().join("keys.toml"), "a token without 2 of the vault's key versions");
        // Under the same master key, too.
        let key = |folder: &Folder| folder.dir.path().join("master.key");
        std::fs::copy(key(&from), key(&to)).unwrap();
        refused(embedded(&to), "no [hsm], and 2 of the vault's key versions");
        run(&mut moving(&in_token(&from), &in_token(&from))).refuses("MoveToItself");
        assert_eq!(token::states(&session), ["kept"; 2]);
        signs(&from.open().await, "e", "ES256", 32).await;
    });
}
