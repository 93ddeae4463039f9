//! `casemate-keys check`: whether a database is whole, before it is needed.
//!
//! What it proves: SQLite's own structures hold; the schema is this program's; every stored key opens under the master key,
//! bound to its name, type, exportability and policy, and has the public part that it shows; the release-signing identity
//! opens; the decision log is one chain. Of a key in a hardware security module: its object is there, as protected as its row
//! says, and signs for the public part that is shown; and it tells the objects that no row refers to. What it cannot prove: that nothing was cut off the end of the log, or that the
//! whole file is not an older one. For that, compare `lastHash` with what was noted elsewhere.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use public_api::decision_log::{self, Entry};
use serde_json::{Value, json};

use super::token::TokenCheck;
use super::{CommandError, refusals};
use crate::app::keys::binding;
use crate::config::Config;
use crate::crypto::kind::public_part;
use crate::crypto::seal::MasterKey;
use crate::crypto::signer::Signer;
use crate::hsm::{Hsm, KeyId, Reference};
use crate::store::keys::KeyRecord;
use crate::store::snapshot::{Schema, Snapshot};
use crate::store::{Place, decisions, keys, meta, standing};

/// Keys that are in memory at once.
const PAGE: u32 = 100;

/// What to check.
#[derive(Debug, clap::Args)]
pub struct CheckArguments {
    /// The service's configuration file (TOML): it names the master key, and the database if no other is given.
    #[arg(long)]
    config: PathBuf,
    /// A database, for example a backup; the service's own if not given.
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
}

impl CheckArguments {
    /// Checks everything; the first thing that does not hold is the error.
    pub async fn run(self) -> Result<Value, CommandError> {
        let config = Config::load(&self.config)?;
        let database = match self.database {
            Some(file) => Place::Sqlite(file),
            None => config.place()?,
        };
        let mut snapshot = Snapshot::open(&database).await.map_err(refusals::of_store)?;
        let seen = prove(&mut snapshot, &config).await;
        snapshot.close().await;
        let (keys, log, hsm) = seen?;
        let database = database.to_string();
        let mut told = json!({"database": database, "status": "whole", "keys": keys, "log": log});
        if let (Some(hsm), Some(told)) = (hsm, told.as_object_mut()) {
            told.insert("hsm".to_owned(), hsm);
        }
        Ok(told)
    }
}

async fn prove(
    snapshot: &mut Snapshot,
    config: &Config,
) -> Result<(Value, Value, Option<Value>), CommandError> {
    if let Some(found) = snapshot.damage().await.map_err(refusals::of_store)? {
        return Err(refusals::damaged(found));
    }
    schema(snapshot).await?;
    if let Some(standing) = standing::read(&mut snapshot.connection).await.map_err(refusals::of_store)? {
        return Err(refusals::not_a_vault(&standing));
    }
    let master = master_key(snapshot, config).await?;
    let hsm = config.hsm.as_ref().map(Hsm::open).transpose()?;
    contents(snapshot, hsm.map(Arc::new), &master).await
}

/// Refuses a schema that is not this program's.
pub(super) async fn schema(snapshot: &mut Snapshot) -> Result<(), CommandError> {
    match snapshot.schema().await.map_err(refusals::of_store)? {
        Schema::Ours => Ok(()),
        Schema::Other(version) => Err(refusals::schema(version)),
    }
}

/// What is sealed opens, what lies in the token is there, and the log is one chain: how many keys, where the log ends, and
/// what the token holds.
pub(super) async fn contents(
    snapshot: &mut Snapshot,
    hsm: Option<Arc<Hsm>>,
    master: &MasterKey,
) -> Result<(Value, Value, Option<Value>), CommandError> {
    signing_identity(snapshot, master).await?;
    let token = hsm.map(|hsm| TokenCheck::of(hsm, master.id().as_str())).transpose()?;
    let referred = stored_keys(snapshot, master, token.as_ref()).await?;
    let last = log(snapshot).await?;
    let numbers = snapshot.numbers().await.map_err(refusals::of_store)?;
    let keys = json!({"live": numbers.live, "deleted": numbers.deleted, "versions": numbers.versions});
    let entries = last.as_ref().map_or(0, |entry| entry.sequence);
    let log = json!({"entries": entries, "lastHash": last.map(|entry| entry.hash)});
    Ok((keys, log, token.map(|token| token.told(&referred))))
}

async fn master_key(snapshot: &mut Snapshot, config: &Config) -> Result<MasterKey, CommandError> {
    let id = meta::read(&mut snapshot.connection, meta::MASTER_KEY_ID).await.map_err(refusals::of_store)?;
    let id = id.ok_or_else(refusals::never_used)?;
    Ok(MasterKey::load(&config.master_key, Some(&String::from_utf8_lossy(&id)))?)
}

async fn signing_identity(snapshot: &mut Snapshot, master: &MasterKey) -> Result<(), CommandError> {
    let stored = meta::read(&mut snapshot.connection, meta::SIGNING_IDENTITY).await;
    match stored.map_err(refusals::of_store)? {
        Some(stored) => Signer::prove(&stored, master).map_err(|error| refusals::signing_identity(&error)),
        // A service that was ended in its first second has none yet.
        None => Ok(()),
    }
}

/// Returns the ids of the objects in the token that rows refer to.
async fn stored_keys(
    snapshot: &mut Snapshot,
    master: &MasterKey,
    token: Option<&TokenCheck>,
) -> Result<BTreeSet<KeyId>, CommandError> {
    let (mut referred, mut last) = (BTreeSet::new(), i64::MIN);
    loop {
        let page = keys::after_row(&mut snapshot.connection, last, PAGE).await.map_err(refusals::of_store)?;
        let Some((row, _)) = page.last() else { return Ok(referred) };
        last = *row;
        for (_, record) in &page {
            match Reference::open(master, &record.sealed, &binding(record)) {
                Some(Reference(id)) => {
                    let token = token.ok_or_else(|| refusals::no_token(record))?;
                    token.prove(record, id)?;
                    referred.insert(id);
                }
                None => stored_key(record, master)?,
            }
        }
    }
}

fn stored_key(record: &KeyRecord, master: &MasterKey) -> Result<(), CommandError> {
    let private = master.open(&record.sealed, &binding(record)).map_err(|_| refusals::sealed(record))?;
    if public_part(&private, &record.public).as_ref() == Some(&record.public) {
        return Ok(());
    }
    Err(refusals::public_part(record))
}

/// Verifies the chain page by page; the last entry.
async fn log(snapshot: &mut Snapshot) -> Result<Option<Entry>, CommandError> {
    let mut last: Option<Entry> = None;
    loop {
        let after = last.as_ref().map_or(0, |entry| entry.sequence);
        let page = decisions::after(&mut snapshot.connection, after).await.map_err(refusals::of_store)?;
        if page.is_empty() {
            return Ok(last);
        }
        decision_log::verify(last.as_ref(), &page).map_err(|error| refusals::log(&error))?;
        last = page.into_iter().next_back();
    }
}
