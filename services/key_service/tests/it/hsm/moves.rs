//! `casemate-keys move` into a token: from an embedded store, with every type of key; what is refused, and what is left when
//! it does not end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use key_service::reconcile::sweep;
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::token;
use crate::binary::unix_now;
use crate::support::issuer::{attestation, encoded, transfer_key};
use crate::support::program::{dies_at, moving, run};
use crate::support::softhsm::{another_token, with_token, with_token_as};
use crate::support::unwrap::{modulus, released_modulus, released_pkcs8, verified};
use crate::support::vault::{Folder, Vault, platform_conditions, policy};

/// Where a move can die before its source is left.
const BEFORE: [&str; 5] = [
    "the source of a move is marked",
    "a key of a move is in the token",
    "the keys of a move are in the token",
    "the target of a move is written",
    "the target of a move is filled",
];

/// A configuration without its token.
pub fn without(text: String) -> String {
    text.split("[hsm]").next().unwrap().to_owned()
}

/// The configuration of a vault in files only.
fn embedded(folder: &Folder) -> PathBuf {
    folder.config(without).unwrap();
    folder.dir.path().join("keys.toml")
}

/// The configuration of a vault with the test's token.
fn in_token(folder: &Folder) -> PathBuf {
    folder.config(|text| text).unwrap();
    folder.dir.path().join("keys.toml")
}

pub fn into_token(from: &Folder, to: &Folder) -> Command {
    moving(&embedded(from), &in_token(to))
}

/// A folder whose clock is the program's.
pub fn folder() -> Folder {
    let folder = Folder::in_a_file();
    folder.clock.store(unix_now(), Ordering::SeqCst);
    folder
}

pub fn closed(vault: Vault) -> Folder {
    let Vault { app, state, folder } = vault;
    drop((app, state));
    folder
}

async fn create(vault: &Vault, name: &str, body: &Value) {
    vault.officer("POST", &format!("/keys/{name}/create"), body).await.ok();
}

async fn ask(vault: &Vault, name: &str, operation: &str, body: Value) -> Value {
    vault.officer("POST", &format!("/keys/{name}//{operation}"), &body).await.ok()
}

/// A vault in a file with two keys that belong into a token, and one that does not.
async fn small() -> Folder {
    let vault = folder().open_with(without).await;
    create(&vault, "e", &json!({"kty": "EC-HSM"})).await;
    create(&vault, "oct", &json!({"kty": "oct-HSM", "key_size": 256})).await;
    create(&vault, "sealed", &json!({"kty": "EC"})).await;
    closed(vault)
}

/// What a small vault's key makes of a value, always the same.
async fn wrapped(vault: &Vault) -> Value {
    ask(vault, "oct", "wrapkey", json!({"alg": "A256KW", "value": encoded([7; 32])})).await["value"].clone()
}

async fn signs(vault: &Vault, name: &str, alg: &str, length: usize) {
    let digest = encoded(vec![7; length]);
    let signature = ask(vault, name, "sign", json!({"alg": alg, "value": digest})).await["value"].clone();
    let verify = json!({"alg": alg, "digest": digest, "value": signature});
    assert_eq!(ask(vault, name, "verify", verify).await["value"], true, "{name}");
}

const RSA: [(&str, u32); 2] = [("r2048", 2048), ("r3072", 3072)];
const CURVES: [(&str, &str, usize); 4] =
    [("P-256", "ES256", 32), ("P-384", "ES384", 48), ("P-521", "ES512", 64), ("P-256K", "ES256K", 32)];

/// A vault in a file with a key of every type, and what was made with them.
async fn every_type() -> (Folder, Vec<Value>) {
    let vault = folder().open_with(without).await;
    let released = policy(&platform_conditions());
    for (name, size) in RSA {
        let body = json!({"kty": "RSA-HSM", "key_size": size, "attributes": {"exportable": true},
                          "release_policy": {"data": released}});
        create(&vault, name, &body).await;
    }
    for (curve, ..) in CURVES {
        create(&vault, curve, &json!({"kty": "EC-HSM", "crv": curve})).await;
    }
    let exportable = json!({"kty": "EC-HSM", "attributes": {"exportable": true},
                            "release_policy": {"data": released}});
    create(&vault, "released", &exportable).await;
    for bits in [128, 192, 256] {
        create(&vault, &format!("oct{bits}"), &json!({"kty": "oct-HSM", "key_size": bits})).await;
    }
    create(&vault, "sealed", &json!({"kty": "RSA"})).await;
    create(&vault, "P-256", &json!({"kty": "EC-HSM"})).await;
    create(&vault, "gone", &json!({"kty": "EC-HSM"})).await;
    vault.officer("DELETE", "/keys/gone", &Value::Null).await.ok();
    let made = made(&vault).await;
    (closed(vault), made)
}

/// What is the same each time that a key makes it.
async fn made(vault: &Vault) -> Vec<Value> {
    let mut made = Vec::new();
    for (name, _) in RSA {
        let body = json!({"alg": "RS256", "value": encoded([7; 32])});
        made.push(ask(vault, name, "sign", body).await);
    }
    for bits in [128, 192, 256] {
        let name = format!("oct{bits}");
        let body = json!({"alg": format!("A{bits}KW"), "value": encoded([7; 32])});
        made.push(ask(vault, &name, "wrapkey", body).await);
        let body = json!({"alg": format!("A{bits}CBCPAD"), "value": encoded("x"), "iv": encoded([9; 16])});
        made.push(ask(vault, &name, "encrypt", body).await);
    }
    for (curve, ..) in CURVES {
        made.push(vault.get(&format!("/keys/{curve}/")).await.ok()["key"].clone());
    }
    made
}

/// What was encrypted to the public part before, the private part in the token decrypts.
async fn decrypts(vault: &Vault, sealed: &[Value]) {
    for ((name, _), sealed) in RSA.iter().zip(sealed) {
        let body = json!({"alg": "RSA-OAEP-256", "value": sealed});
        assert_eq!(ask(vault, name, "decrypt", body).await["value"], encoded("secret"), "{name}");
    }
}

#[test]
fn every_type_of_key_moves_into_the_token_and_is_the_same_key_there() {
    with_token_as(("", "all_keys = false"), async |_| {
        let (file, before) = every_type().await;
        let vault = file.open_with(without).await;
        let mut sealed = Vec::new();
        for (name, _) in RSA {
            let body = json!({"alg": "RSA-OAEP-256", "value": encoded("secret")});
            sealed.push(ask(&vault, name, "encrypt", body).await["value"].clone());
        }
        let ec = vault.get("/keys/released/").await.ok();
        let signed = json!({"alg": "ES384", "value": encoded([7; 48])});
        let signed = ask(&vault, "P-384", "sign", signed).await["value"].clone();
        let (file, target) = (closed(vault), folder());
        let said = run(&mut into_token(&file, &target)).json();
        assert_eq!(said["versionsIntoToken"], 12, "{said}");
        let session = token::session();
        assert_eq!(token::states(&session), ["kept"; 12]);
        assert_eq!(token::extractable(&session), 3);

        let vault = target.open().await;
        assert_eq!(made(&vault).await, before);
        decrypts(&vault, &sealed).await;
        for (curve, alg, length) in CURVES {
            signs(&vault, curve, alg, length).await;
        }
        let verify = json!({"alg": "ES384", "digest": encoded([7; 48]), "value": signed});
        assert_eq!(ask(&vault, "P-384", "verify", verify).await["value"], true);
        is_in_the_token(&vault).await;
        is_released(&vault, &ec).await;
        let log = vault.log().await;
        public_api::decision_log::verify(None, &log).unwrap();
        let entry = log.iter().find(|entry| entry.detail["operation"] == "moveVault").unwrap();
        assert_eq!(entry.detail["versionsIntoToken"], 12);
        let swept = sweep::once(&vault.state).await.unwrap();
        assert_eq!(
            (swept.objects, swept.destroyed, swept.unknown, swept.missing),
            (12, vec![], vec![], vec![])
        );
        is_whole(&vault.folder);
    });
}

/// Each key says so, but the one whose type does not belong there; a deleted one comes back.
async fn is_in_the_token(vault: &Vault) {
    vault.officer("POST", "/deletedkeys/gone/recover", &Value::Null).await.ok();
    signs(vault, "gone", "ES256", 32).await;
    let list = vault.get("/keys").await.ok();
    for key in list["value"].as_array().unwrap() {
        let sealed = key["kid"].as_str().unwrap().ends_with("/sealed");
        assert_eq!(key["attributes"]["hsmPlatform"].is_string(), !sealed, "{key}");
    }
    let body = json!({"alg": "RS256", "value": encoded([7; 32])});
    ask(vault, "sealed", "sign", body).await;
}

/// Exportable keys leave the token, as they are, to who proves what it is.
async fn is_released(vault: &Vault, ec: &Value) {
    for (name, _) in RSA {
        let token = attestation().token(&vault.evidence(0));
        let answer = vault.release(&format!("/keys/{name}/release"), &token).await.ok();
        let (_, payload) = verified(answer["value"].as_str().unwrap());
        let shown = vault.get(&format!("/keys/{name}/")).await.ok();
        assert_eq!(released_modulus(&payload, transfer_key()), modulus(&shown));
    }
    let token = attestation().token(&vault.evidence(0));
    let answer = vault.release("/keys/released/release", &token).await.ok();
    let (_, payload) = verified(answer["value"].as_str().unwrap());
    assert_eq!(vault.get("/keys/released/").await.ok()["key"], ec["key"]);
    assert!(!released_pkcs8(&payload, transfer_key()).is_empty());
}

fn is_whole(folder: &Folder) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_casemate-keys"));
    assert_eq!(run(check.args(["check", "--config"]).arg(in_token(folder))).json()["status"], "whole");
}

async fn is_not_served(folder: &Folder, change: impl Fn(String) -> String) {
    let error = folder.try_open_with(&change).await.err().expect("it is no vault");
    let text = key_service::chain(&error);
    assert!(text.contains("this vault"), "{text}");
}

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
