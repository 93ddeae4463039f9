//! `casemate key backup` and `restore`: one key with all its versions, opaque to everyone but the installation that made
//! it. The whole database is backed up by `casemate-keys backup`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use public_api::key_operations::KeyBackup;
use public_api::keys::KeyBundle;
use reqwest::Method;
use serde_json::json;

use super::{Name, Vault, describe, make};
use crate::failure::Failure;
use crate::printer::Printer;

/// `backup`
#[derive(Debug, Args)]
pub struct Backup {
    #[command(flatten)]
    key: Name,
    /// The new file; it must not exist.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// `restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// What `backup` wrote.
    file: PathBuf,
}

/// Writes a backup.
pub async fn backup(backup: &Backup, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let answer: KeyBackup = vault.ask(Method::POST, &backup.key.path("/backup")).await?;
    write_new(&backup.to, &answer.value)?;
    let (to, bytes) = (backup.to.display().to_string(), answer.value.len());
    let value = json!({"name": backup.key.name, "to": to, "bytes": bytes});
    printer.facts(&value, &[("written to", to), ("bytes", bytes.to_string())]);
    Ok(())
}

/// Brings a key back.
pub async fn restore(restore: &Restore, vault: &Vault<'_>, printer: &Printer) -> Result<()> {
    let body = KeyBackup { value: make::read(&restore.file)? };
    let bundle: KeyBundle = vault.post("/keys/restore", &body).await?;
    describe::show(&bundle, printer)
}

/// Writes a file that only its owner can read, over nothing.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Failure::you(format!("{} exists", path.display()), "name another file, or move that one away")
        }
        _ => Failure::you(
            format!("{} cannot be made: {error}", path.display()),
            "name a file in a folder of yours",
        ),
    })?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.with_context(|| format!("writing {}", path.display()))
}
