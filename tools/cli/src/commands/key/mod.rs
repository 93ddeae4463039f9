//! `casemate key`: keys of the key service, over its own routes. No private key is ever shown: releasing one is for guests.

mod backup;
mod describe;
mod generation;
mod life;
mod log;
mod make;
mod random;
mod rotation;
mod sign;
mod value;

use std::path::Path;

use anyhow::Result;
use clap::{Args, Subcommand};
use public_api::client::{Connection, KEYS_API_VERSION, KeyClient};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::printer::Printer;
use crate::profile::Profile;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// All keys.
    List {
        /// Those that were deleted and can be recovered.
        #[arg(long)]
        deleted: bool,
    },
    /// One key: its id, its policy, whether it may be released.
    Show(Target),
    /// Every version of a key.
    Versions(Name),
    /// A key for confidential disks, released only to VMs that attest; or any other with --type.
    Create(make::Create),
    /// Bring a key along: a private JSON Web Key in a file.
    Import(make::Import),
    /// Change what may change of a version: whether it is enabled, its dates, operations, tags, its policy.
    Update(life::Update),
    /// Let another key follow a version in protecting disks: VMs may then be moved from this one to that one.
    LetFollow(life::LetFollow),
    /// Delete a key; it can be recovered for some time.
    Delete(Name),
    /// A deleted key is live again.
    Recover(Name),
    /// Destroy a deleted key before its time.
    Purge(Name),
    /// All versions of a key in a file that this installation alone can open.
    Backup(backup::Backup),
    /// Bring a key back from such a file.
    Restore(backup::Restore),
    /// A new version like the newest one.
    Rotate(Name),
    /// When a key is renewed by itself.
    #[command(subcommand)]
    RotationPolicy(rotation::Command),
    /// Which guest state of each VM was released last, and the way back to a restored one.
    #[command(subcommand)]
    Generation(generation::Command),
    /// Encrypt a value.
    Encrypt(value::Cipher),
    /// Decrypt a value.
    Decrypt(value::Cipher),
    /// Encrypt a key.
    Wrap(value::Cipher),
    /// Decrypt a key.
    Unwrap(value::Cipher),
    /// Sign a file or a digest.
    Sign(sign::Sign),
    /// Whether a signature holds.
    Verify(sign::Verify),
    /// Random bytes.
    Random(random::Random),
    /// What happened to keys: the key service's decision log, and the proof that it is whole.
    Log(log::Log),
}

/// A key.
#[derive(Clone, Debug, Args)]
pub struct Name {
    /// The key's name.
    #[arg(value_parser = key_name)]
    name: String,
}

/// A version of a key.
#[derive(Clone, Debug, Args)]
pub struct Target {
    #[command(flatten)]
    key: Name,
    /// Which version; the newest if not given.
    #[arg(long = "key-version", value_name = "VERSION", value_parser = key_name)]
    version: Option<String>,
}

impl Name {
    fn path(&self, rest: &str) -> String {
        format!("/keys/{}{rest}", self.name)
    }

    fn deleted(&self) -> String {
        format!("/deletedkeys/{}", self.name)
    }
}

impl Target {
    /// The path of an operation, or of the key itself for "".
    fn path(&self, operation: &str) -> String {
        let version = self.version.as_deref().unwrap_or_default();
        match operation {
            "" => self.key.path(&format!("/{version}")),
            operation => self.key.path(&format!("/{version}/{operation}")),
        }
    }
}

/// What can stand in a path: a name, or a version.
fn key_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if fits { Ok(text.to_owned()) } else { Err("expected letters, digits and hyphens".to_owned()) }
}

/// Runs the command.
pub async fn run(command: Command, data_dir: &Path, printer: &Printer) -> Result<()> {
    let profile = Profile::load(data_dir)?;
    let keys = profile.key_client().await?;
    let vault = Vault(&keys.0);
    match command {
        Command::List { deleted } => describe::list(deleted, &vault, printer).await,
        Command::Show(target) => describe::show(&vault.get(&target.path("")).await?, printer),
        Command::Versions(name) => describe::versions(&name, &vault, printer).await,
        Command::Create(create) => make::create(&create, &profile, &vault, printer).await,
        Command::Import(import) => make::import(&import, &vault, printer).await,
        Command::Update(update) => life::update(&update, &vault, printer).await,
        Command::LetFollow(follow) => life::let_follow(&follow, &vault, printer).await,
        Command::Delete(name) => life::delete(&name, &vault, printer).await,
        Command::Recover(name) => life::recover(&name, &vault, printer).await,
        Command::Purge(name) => life::purge(&name, &vault, printer).await,
        Command::Rotate(name) => life::rotate(&name, &vault, printer).await,
        Command::Backup(backup) => backup::backup(&backup, &vault, printer).await,
        Command::Restore(restore) => backup::restore(&restore, &vault, printer).await,
        Command::RotationPolicy(command) => rotation::run(&command, &vault, printer).await,
        Command::Generation(command) => generation::run(&command, &KeyClient(keys.0.clone()), printer).await,
        Command::Encrypt(cipher) => value::run("encrypt", &cipher, &vault, printer).await,
        Command::Decrypt(cipher) => value::run("decrypt", &cipher, &vault, printer).await,
        Command::Wrap(cipher) => value::run("wrapkey", &cipher, &vault, printer).await,
        Command::Unwrap(cipher) => value::run("unwrapkey", &cipher, &vault, printer).await,
        Command::Sign(sign) => sign::sign(&sign, &vault, printer).await,
        Command::Verify(verify) => sign::verify(&verify, &vault, printer).await,
        Command::Random(random) => random::run(&random, &vault, printer).await,
        Command::Log(log) => log::run(&log, &KeyClient(keys.0.clone()), printer).await,
    }
}

/// The key service, with the API version on every path.
struct Vault<'a>(&'a Connection);

impl Vault<'_> {
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        Ok(self.0.get(&versioned(path)).await?)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        Ok(self.0.post(&versioned(path), body).await?)
    }

    /// `POST` without a body.
    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T> {
        Ok(self.0.send(method, &versioned(path), None).await?.json().await?)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let body = serde_json::to_value(body)?;
        Ok(self.0.send(method, &versioned(path), Some(&body)).await?.json().await?)
    }
}

fn versioned(path: &str) -> String {
    format!("{path}?api-version={KEYS_API_VERSION}")
}
