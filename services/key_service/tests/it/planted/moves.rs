//! Planted keys that a vault moves into a token with: opened, wrapped and proved by a program that says all it can.

use serde_json::Value;

use super::keys::planted;
use super::needles::Needles;
use crate::hsm::moves::{closed, folder, into_token, without};
use crate::support::program::run;
use crate::support::softhsm::with_token;
use crate::support::vault::Folder;

/// Everything in the target's data folder.
fn written(target: &Folder) -> Vec<u8> {
    let files = std::fs::read_dir(target.dir.path().join("data")).unwrap();
    files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn a_move_into_a_token_says_nothing_of_a_key_and_writes_none_in_clear() {
    with_token(async |_| {
        let (planted, mut needles) = (planted(), Needles::default());
        let vault = folder().open_with(without).await;
        for key in &planted {
            key.hide_in(&mut needles);
            vault.officer("PUT", &format!("/keys/{}", key.name), &key.import()).await.ok();
        }
        let (from, to) = (closed(vault), folder());
        // The first try ends when everything is opened and wrapped; the second one reads all of it back.
        let plan = tempfile::tempdir().unwrap();
        std::fs::write(plan.path().join("crash-at"), "0 keys: the target of a move is written").unwrap();
        let loud = |program: &mut std::process::Command| run(program.env("RUST_LOG", "trace"));
        let died = loud(into_token(&from, &to).env("CASEMATE_FAULT_PLAN", plan.path()));
        assert_eq!(died.code, None, "{}", died.err);
        let moved = loud(&mut into_token(&from, &to));
        let said: Value = moved.json();
        assert_eq!(said["versionsIntoToken"], planted.len());
        for text in [&died.out, &died.err, &moved.out, &moved.err] {
            assert_eq!(needles.found(text.as_bytes()), [""; 0]);
        }
        assert_eq!(needles.found(&written(&to)), [""; 0]);
    });
}
