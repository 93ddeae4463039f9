//! `casemate-keys move` into a token, from an embedded store.

mod ends;
mod targets;
mod types;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::binary::unix_now;
use crate::support::issuer::encoded;
use crate::support::program::{moving, run};
use crate::support::vault::{Folder, Vault};

/// A configuration without its token.
pub fn without(text: String) -> String {
    text.split("[hsm]").next().unwrap().to_owned()
}

/// The configuration of a vault in files only.
pub fn embedded(folder: &Folder) -> PathBuf {
    folder.config(without).unwrap();
    folder.dir.path().join("keys.toml")
}

/// The configuration of a vault with the test's token.
pub fn in_token(folder: &Folder) -> PathBuf {
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

pub async fn create(vault: &Vault, name: &str, body: &Value) {
    vault.officer("POST", &format!("/keys/{name}/create"), body).await.ok();
}

pub async fn ask(vault: &Vault, name: &str, operation: &str, body: Value) -> Value {
    vault.officer("POST", &format!("/keys/{name}//{operation}"), &body).await.ok()
}

/// A vault in a file with two keys that belong into a token, and one that does not.
pub async fn small() -> Folder {
    let vault = folder().open_with(without).await;
    create(&vault, "e", &json!({"kty": "EC-HSM"})).await;
    create(&vault, "oct", &json!({"kty": "oct-HSM", "key_size": 256})).await;
    create(&vault, "sealed", &json!({"kty": "EC"})).await;
    closed(vault)
}

/// What a small vault's key makes of a value, always the same.
pub async fn wrapped(vault: &Vault) -> Value {
    ask(vault, "oct", "wrapkey", json!({"alg": "A256KW", "value": encoded([7; 32])})).await["value"].clone()
}

pub async fn signs(vault: &Vault, name: &str, alg: &str, length: usize) {
    let digest = encoded(vec![7; length]);
    let signature = ask(vault, name, "sign", json!({"alg": alg, "value": digest})).await["value"].clone();
    let verify = json!({"alg": alg, "digest": digest, "value": signature});
    assert_eq!(ask(vault, name, "verify", verify).await["value"], true, "{name}");
}

pub fn is_whole(folder: &Folder) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_casemate-keys"));
    assert_eq!(run(check.args(["check", "--config"]).arg(in_token(folder))).json()["status"], "whole");
}

pub async fn is_not_served(folder: &Folder, change: impl Fn(String) -> String) {
    let error = folder.try_open_with(&change).await.err().expect("it is no vault");
    let text = key_service::chain(&error);
    assert!(text.contains("this vault"), "{text}");
}
