//! `casemate-keys move`: a whole vault to PostgreSQL and back, and what is left when it does not end.

use std::path::PathBuf;
use std::process::Command;

use key_service::app::StartError;
use public_api::decision_log::Entry;
use serde_json::{Value, json};

use crate::support::issuer::{attestation, encoded, transfer_key};
use crate::support::program::{Said, dies_at, moving, run};
use crate::support::unwrap::{modulus, released_modulus, verified};
use crate::support::vault::{BASE, Folder, Vault, platform_conditions};

fn config(folder: &Folder) -> PathBuf {
    folder.config(|text| text).unwrap();
    folder.dir.path().join("keys.toml")
}

fn command(from: &Folder, to: &Folder) -> Command {
    moving(&config(from), &config(to))
}

fn move_vault(from: &Folder, to: &Folder) -> Said {
    run(&mut command(from, to))
}

/// A vault with something of everything, closed.
async fn filled(folder: Folder) -> (Folder, Filled) {
    let vault = folder.open().await;
    let platform = vault.exportable("Platform", platform_conditions()).await;
    for generation in [0, 1] {
        let token = attestation().token(&vault.evidence(generation));
        vault.release("/keys/platform/release", &token).await.ok();
    }
    let spent = attestation().token(&vault.evidence(1));
    vault.release("/keys/platform/release", &spent).await.ok();
    for (name, kind) in [
        ("e", json!({"kty": "EC", "crv": "P-521", "tags": {"ä": "\u{1f511} \0"}})),
        ("E", json!({"kty": "EC-HSM"})),
        ("oct", json!({"kty": "oct-HSM", "key_size": 256, "attributes": {"exp": 2_000_000_000}})),
        ("Gone", json!({"kty": "RSA"})),
        ("purged", json!({"kty": "EC"})),
    ] {
        vault.officer("POST", &format!("/keys/{name}/create"), &kind).await.ok();
    }
    let actions = json!([{"trigger": {"timeAfterCreate": "P30D"}, "action": {"type": "Rotate"}}]);
    let policy = json!({"lifetimeActions": actions, "attributes": {"expiryTime": "P90D"}});
    vault.officer("PUT", "/keys/e/rotationpolicy", &policy).await.ok();
    let wrap = json!({"alg": "A256KW", "value": encoded([7; 32])});
    let wrapped = vault.officer("POST", "/keys/oct/wrapkey", &wrap).await.ok()["value"].clone();
    for name in ["Gone", "purged"] {
        vault.officer("DELETE", &format!("/keys/{name}"), &Value::Null).await.ok();
    }
    vault.officer("DELETE", "/deletedkeys/purged", &Value::Null).await;
    let seen = Filled { platform, spent, wrapped, shown: shown(&vault).await, log: vault.log().await };
    let Vault { app, state, folder } = vault;
    drop((app, state));
    (folder, seen)
}

/// What a vault was.
struct Filled {
    platform: Value,
    spent: String,
    wrapped: Value,
    shown: Vec<Value>,
    log: Vec<Entry>,
}

async fn shown(vault: &Vault) -> Vec<Value> {
    let mut shown = Vec::new();
    for path in ["/keys", "/deletedkeys", "/keys/e/versions", "/keys/platform", "/keys/e/rotationpolicy"] {
        shown.push(vault.get(path).await.ok());
    }
    shown
}

/// Everything that a vault was, it is.
async fn is_the_vault(vault: &Vault, before: &Filled) {
    assert_eq!(shown(vault).await, before.shown);
    let replayed = vault.release("/keys/platform/release", &before.spent).await;
    assert_eq!(replayed.denial()["code"], "TokenReplayed");
    let old = vault.release("/keys/platform/release", &attestation().token(&vault.evidence(0))).await;
    assert_eq!(old.denial()["code"], "RollbackRefused");
    let token = attestation().token(&vault.evidence(1));
    let answer = vault.release("/keys/platform/release", &token).await.ok();
    let (_, payload) = verified(answer["value"].as_str().unwrap());
    assert_eq!(released_modulus(&payload, transfer_key()), modulus(&before.platform));
    let unwrap = json!({"alg": "A256KW", "value": before.wrapped});
    let unwrapped = vault.officer("POST", "/keys/oct/unwrapkey", &unwrap).await.ok();
    assert_eq!(unwrapped["value"], encoded([7; 32]));
    let log = vault.log().await;
    public_api::decision_log::verify(None, &log).unwrap();
    assert_eq!(log[..before.log.len()], before.log, "each entry is as it was");
    let entry = &log[before.log.len()];
    assert_eq!((&entry.detail["operation"], entry.subject.as_str()), (&json!("moveVault"), BASE));
}

/// A folder for a vault that there is not yet, with the master key of another.
fn with_the_key_of(other: &Folder, folder: Folder) -> Folder {
    let key = folder.dir.path().join("master.key");
    std::fs::copy(other.dir.path().join("master.key"), key).unwrap();
    folder
}

#[tokio::test]
async fn a_vault_goes_to_postgres_and_back_with_everything() {
    let (file, before) = filled(Folder::in_a_file()).await;
    let server = with_the_key_of(&file, Folder::on_postgres());
    let said = move_vault(&file, &server).json();
    assert_eq!((&said["status"], &said["sealedAnew"]), (&json!("moved"), &json!(false)));
    let checked = run(Command::new(env!("CARGO_BIN_EXE_casemate-keys"))
        .args(["check", "--config"])
        .arg(config(&server)))
    .json();
    assert_eq!(checked["status"], "whole");
    let vault = server.open().await;
    is_the_vault(&vault, &before).await;
    let shown_there = shown(&vault).await;
    let Vault { app, state, folder: server } = vault;
    drop((app, state));
    closed(&server).await;
    // Back, under another master key.
    let back = Folder::in_a_file();
    let said = move_vault(&server, &back).json();
    assert_eq!(said["sealedAnew"], true);
    let vault = back.open().await;
    is_the_vault(&vault, &before).await;
    assert_eq!(shown(&vault).await, shown_there);
}

/// Waits until the last service is off the vault: it lets go of it a moment after it is dropped. (Calling off a move that
/// there is not needs the vault alone, and changes nothing.)
async fn closed(folder: &Folder) {
    let mut interval = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..500 {
        interval.tick().await;
        let probe = run(command(folder, &Folder::in_a_file()).arg("--call-off"));
        if !probe.err.contains("a key service runs on it") {
            return;
        }
    }
    panic!("waited too long");
}

#[tokio::test]
async fn a_vault_that_was_moved_is_served_at_one_place_only() {
    let (file, _) = filled(Folder::in_a_file()).await;
    let server = with_the_key_of(&file, Folder::on_postgres());
    move_vault(&file, &server).json();
    refuses_to_serve(&file, "this vault was moved to postgres://").await;
    let other = with_the_key_of(&file, Folder::on_postgres());
    move_vault(&file, &other).refuses("VaultMoved");
    run(command(&file, &server).arg("--call-off")).refuses("MoveNotCalledOff");
}

async fn refuses_to_serve(folder: &Folder, expected: &str) {
    let error: StartError = folder.try_open().await.err().expect("it is not a vault");
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    assert!(text.contains(expected), "{text}");
}

#[tokio::test]
async fn a_move_takes_no_vault_from_under_a_service_and_writes_over_none() {
    let (file, _) = filled(Folder::in_a_file()).await;
    let (full, _) = filled(Folder::on_postgres()).await;
    closed(&full).await;
    move_vault(&file, &full).refuses("TargetNotEmpty");
    move_vault(&file, &file).refuses("MoveToItself");
    let running = full.open().await;
    let empty = Folder::in_a_file();
    move_vault(&running.folder, &empty).refuses("a key service runs on it");
    let vault = file.open().await;
    let server = Folder::on_postgres();
    move_vault(&vault.folder, &server).refuses("another key service runs on the data folder");
    let nothing = Folder::in_a_file();
    move_vault(&nothing, &server).refuses("could not open the key database");
}

/// The points at which the program can die, and what may be served then.
#[tokio::test]
async fn a_move_that_dies_anywhere_leaves_one_vault_at_most_and_can_be_finished() {
    let (file, before) = filled(Folder::in_a_file()).await;
    let mut from = file;
    for (number, point) in [
        "the source of a move is marked",
        "the target of a move is written",
        "the target of a move is filled",
        "the source of a move is left",
        "the target of a move is a vault",
    ]
    .into_iter()
    .enumerate()
    {
        let to = if number % 2 == 0 { Folder::on_postgres() } else { Folder::in_a_file() };
        dies_at(&mut command(&from, &to), point);
        refuses_to_serve(&from, "this vault").await;
        if point == "the target of a move is a vault" {
            move_vault(&from, &to).refuses("VaultMoved");
        } else {
            if number >= 2 {
                refuses_to_serve(&to, "this vault is incomplete").await;
            }
            assert_eq!(move_vault(&from, &to).json()["status"], "moved", "{point}");
        }
        from = to;
    }
    let vault = from.open().await;
    is_the_vault(&vault, &before).await;
}

#[tokio::test]
async fn a_move_that_is_called_off_leaves_the_vault_and_a_copy_that_is_none() {
    let (file, before) = filled(Folder::in_a_file()).await;
    let server = with_the_key_of(&file, Folder::on_postgres());
    dies_at(&mut command(&file, &server), "the target of a move is filled");
    run(command(&file, &Folder::in_a_file()).arg("--call-off")).refuses("CallOffOfAnother");
    let said = run(command(&file, &server).arg("--call-off")).json();
    assert_eq!(said["status"], "calledOff");
    refuses_to_serve(&server, "this vault is incomplete").await;
    move_vault(&file, &server).refuses("TargetOfAnotherMove");
    run(command(&file, &server).arg("--call-off")).refuses("NoMove");
    let vault = file.open().await;
    assert_eq!(shown(&vault).await, before.shown);
}

/// A copy that was changed before it became the vault is not taken over.
#[tokio::test]
async fn a_row_that_is_changed_behind_a_move_is_found_before_it_says_done() {
    let (file, _) = filled(Folder::in_a_file()).await;
    let server = with_the_key_of(&file, Folder::on_postgres());
    let schema = server.database.split("schema = \"").nth(1).unwrap().split('"').next().unwrap();
    let mut connection = crate::support::postgres::shared().cluster.connect(schema).await;
    // The target changes what it is given; a service that started on it once has made the tables.
    drop(server.try_open().await);
    closed(&server).await;
    let lie = "CREATE FUNCTION lie() RETURNS trigger LANGUAGE plpgsql AS
                   $$ BEGIN NEW.generation := 0; RETURN NEW; END $$;
               CREATE TRIGGER lie BEFORE INSERT ON generations FOR EACH ROW EXECUTE FUNCTION lie();
               DELETE FROM meta; DELETE FROM decisions";
    sqlx::raw_sql(lie).execute(&mut connection).await.unwrap();
    move_vault(&file, &server).refuses("CopyDiffers");
    file.open().await;
}
