//! A move into a token that does not end: finished by the same command, or called off.

use key_service::reconcile::sweep;
use serde_json::{Value, json};

use super::{closed, embedded, folder, into_token, is_not_served, is_whole, signs, small, without, wrapped};
use crate::binary::unix_now;
use crate::hsm::token;
use crate::support::program::{dies_at, moving, run};
use crate::support::softhsm::{another_token, with_token_as};
use crate::support::vault::Folder;

/// Where a move can die before its source is left.
pub const BEFORE: [&str; 5] = [
    "the source of a move is marked",
    "a key of a move is in the token",
    "the keys of a move are in the token",
    "the target of a move is written",
    "the target of a move is filled",
];

#[test]
fn a_move_into_the_token_that_dies_anywhere_is_finished_by_the_same_command_with_one_object_a_version() {
    with_token_as(("", "all_keys = false"), async |_| {
        let late = ["the source of a move is left", "the keys of a move are kept"];
        for (done, point) in BEFORE.into_iter().chain(late).enumerate() {
            let vault = small().await.open_with(without).await;
            let before = wrapped(&vault).await;
            let to = if done % 2 == 0 { folder() } else { Folder::on_postgres() };
            let from = closed(vault);
            dies_at(&mut into_token(&from, &to), point);
            is_not_served(&from, without).await;
            if BEFORE.contains(&point) {
                dies_at(&mut into_token(&from, &to), point);
            }
            let again = run(&mut into_token(&from, &to)).json();
            assert_eq!(
                (&again["status"], &again["versionsIntoToken"]),
                (&json!("moved"), &json!(2)),
                "{point}"
            );
            is_not_served(&from, without).await;
            let vault = to.open().await;
            assert_eq!(wrapped(&vault).await, before, "{point}");
            signs(&vault, "e", "ES256", 32).await;
            let session = token::session();
            assert_eq!(token::states(&session), vec!["kept"; 2 * (done + 1)], "{point}");
            vault.set_clock(unix_now() + 9 * 3600);
            let swept = sweep::once(&vault.state).await.unwrap();
            assert_eq!((swept.objects, swept.destroyed.len(), swept.missing.len()), (2, 0, 0), "{point}");
            is_whole(&vault.folder);
        }
    });
}

#[test]
fn a_move_that_dies_as_its_last_step_is_done_has_moved() {
    with_token_as(("", "all_keys = false"), async |_| {
        let (from, to) = (small().await, folder());
        dies_at(&mut into_token(&from, &to), "the target of a move is a vault");
        run(&mut into_token(&from, &to)).refuses("VaultMoved");
        let vault = to.open().await;
        signs(&vault, "e", "ES256", 32).await;
        assert_eq!(token::states(&token::session()), ["kept"; 2]);
    });
}

#[test]
fn a_move_that_is_called_off_takes_its_keys_out_of_the_token() {
    with_token_as(("", "all_keys = false"), async |_| {
        for point in BEFORE {
            let (from, to) = (small().await, folder());
            dies_at(&mut into_token(&from, &to), point);
            dies_at(into_token(&from, &to).arg("--call-off"), "the token of a move is cleared");
            assert!(token::objects(&token::session()).is_empty(), "{point}");
            is_not_served(&from, without).await;
            assert_eq!(run(into_token(&from, &to).arg("--call-off")).json()["status"], "calledOff");
            run(into_token(&from, &to).arg("--call-off")).refuses("NoMove");
            let vault = from.open_with(without).await;
            signs(&vault, "e", "ES256", 32).await;
            let (from, other) = (closed(vault), folder());
            assert_eq!(run(&mut into_token(&from, &other)).json()["versionsIntoToken"], 2, "{point}");
            let vault = other.open().await;
            signs(&vault, "e", "ES256", 32).await;
            for name in ["e", "oct"] {
                vault.officer("DELETE", &format!("/keys/{name}"), &Value::Null).await.ok();
                vault.officer("DELETE", &format!("/deletedkeys/{name}"), &Value::Null).await;
            }
        }
    });
}

/// Whoever has lost the token gets the vault back all the same, but says so.
#[test]
fn a_move_is_called_off_without_its_token_only_by_who_says_so() {
    with_token_as(("", "all_keys = false"), async |tokens| {
        let (from, to) = (small().await, folder());
        dies_at(&mut into_token(&from, &to), "the target of a move is filled");
        let config = to.dir.path().join("keys.toml");
        to.config(|text| text.replace("libsofthsm2.so", "lost.so")).unwrap();
        run(moving(&embedded(&from), &config).arg("--call-off")).refuses("HsmCopiesLeft");
        // A token that is there, and is not the one: nothing would be found in it.
        another_token(tokens, "other");
        to.config(|text| text.replace("\"casemate-test\"", "\"other\"")).unwrap();
        run(moving(&embedded(&from), &config).arg("--call-off")).refuses("HsmCopiesLeft");
        is_not_served(&from, without).await;
        let said = run(moving(&embedded(&from), &embedded(&to)).arg("--call-off")).json();
        assert_eq!((&said["status"], &said["destroyed"]), (&json!("calledOff"), &json!(0)));
        signs(&from.open_with(without).await, "e", "ES256", 32).await;
        assert_eq!(token::states(&token::session()), ["made"; 2]);
    });
}

/// Nothing but copies that nobody refers to: the vault that the token is for destroys them when their time is over.
#[test]
fn orphans_of_a_move_are_swept_by_the_vault_with_their_master_key() {
    with_token_as(("", "all_keys = false"), async |_| {
        let (from, to) = (small().await, folder());
        dies_at(&mut into_token(&from, &to), "the keys of a move are in the token");
        run(moving(&embedded(&from), &embedded(&to)).arg("--call-off")).json();
        assert_eq!(run(&mut into_token(&from, &to)).json()["versionsIntoToken"], 2);
        let session = token::session();
        assert_eq!(token::states(&session), ["kept", "kept", "made", "made"]);
        let vault = to.open().await;
        assert!(sweep::once(&vault.state).await.unwrap().destroyed.is_empty());
        vault.set_clock(unix_now() + 3601);
        assert_eq!(sweep::once(&vault.state).await.unwrap().destroyed.len(), 2);
        assert_eq!(token::states(&session), ["kept"; 2]);
        signs(&vault, "e", "ES256", 32).await;
    });
}

/// Who has the PIN puts a key of their own where the first try has put the vault's.
#[test]
fn an_object_that_is_exchanged_between_two_tries_is_not_taken_for_the_key() {
    with_token_as(("", "all_keys = false"), async |_| {
        for point in ["the keys of a move are in the token", "the target of a move is filled"] {
            let vault = small().await.open_with(without).await;
            let before = wrapped(&vault).await;
            let (from, to) = (closed(vault), folder());
            dies_at(&mut into_token(&from, &to), point);
            let session = token::session();
            token::exchange_aes(&session);
            assert_eq!(run(&mut into_token(&from, &to)).json()["versionsIntoToken"], 2);
            assert_eq!(token::states(&token::session()), ["kept"; 2], "{point}");
            let vault = to.open().await;
            assert_eq!(wrapped(&vault).await, before, "{point}");
            for name in ["e", "oct"] {
                vault.officer("DELETE", &format!("/keys/{name}"), &Value::Null).await.ok();
                vault.officer("DELETE", &format!("/deletedkeys/{name}"), &Value::Null).await;
            }
        }
    });
}
