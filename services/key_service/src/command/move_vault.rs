//! `casemate-keys move`: a whole vault from one database to another, a SQLite file or a schema of a PostgreSQL server;
//! and its keys into the token of a hardware security module, if the target has one ([`super::move_token`]).
//!
//! Both ends are marked before a row is copied, and no service runs on a marked database. So whenever this program or the
//! machine dies, at most one end is a vault, and the same command again goes on:
//!
//! ```text
//!   source        target
//!   (vault)       empty       what cannot be moved is refused
//!   source        empty       from here on no service runs on the source; keys are brought into the target's token
//!   source        target      the copy, in one transaction
//!   source        target      read back, compared, every key opened
//!   left          target      from here on the source is no vault any more; objects in the token are kept
//!   left          (vault)     with an entry of the move at the end of its log
//! ```
//!
//! Until the source is `left`, `--call-off` makes it a vault again: the target never became one. What was brought into the
//! token is destroyed first, since afterwards nobody knows of it.

use std::fs::File;
use std::path::{Path, PathBuf};

use public_api::decision_log::Decision;
use serde_json::{Value, json};

use super::move_call_off::call_off;
use super::move_copy::{copy, wipe};
use super::move_marks::Marks;
use super::move_seal::{Seals, keeps};
use super::move_token::{bring, keep, plan};
use super::move_verify::verify;
use super::{CommandError, check, refusals};
use crate::app::reach;
use crate::app::state::{data_dir, locked, rfc3339};
use crate::config::{Config, MasterKeyConfig};
use crate::crypto::seal::MasterKey;
use crate::store::decisions::{self, Event};
use crate::store::snapshot::Snapshot;
use crate::store::standing::{self, Part, Standing};
use crate::store::{self, Connection, Place, Share};

/// From where to where.
#[derive(Debug, clap::Args)]
pub struct MoveArguments {
    /// Configuration of the service that the vault is moved from; it must not run.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Configuration of the service that it is moved to; its database must be empty.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Give up a move that did not end: the source becomes a vault again.
    #[arg(long)]
    call_off: bool,
}

/// One end of a move, for nobody else while this value lives.
pub(super) struct End {
    pub connection: Connection,
    pub config: Config,
    pub place: Place,
    _lock: Option<File>,
}

impl MoveArguments {
    /// Moves, or goes on with a move.
    pub async fn run(self) -> Result<Value, CommandError> {
        let (from, to) = (Config::load(&self.from)?, Config::load(&self.to)?);
        if from.place()?.to_string() == to.place()?.to_string() {
            return Err(refusals::move_to_itself(&to.place()?));
        }
        let mut source = End::source(from).await?;
        if self.call_off {
            let done = call_off(&mut source, &to).await;
            source.connection.close().await;
            return done;
        }
        let mut target = End::target(to).await?;
        let done = move_vault(&mut source, &mut target).await;
        source.connection.close().await;
        target.connection.close().await;
        done
    }
}

impl End {
    /// Opens a vault that there is, after a look at it that changes nothing.
    async fn source(config: Config) -> Result<Self, CommandError> {
        let place = config.place()?;
        let mut snapshot = Snapshot::open(&place).await.map_err(refusals::of_store)?;
        let whole = check::schema(&mut snapshot).await;
        snapshot.close().await;
        whole?;
        Self::alone(config, place).await
    }

    async fn target(config: Config) -> Result<Self, CommandError> {
        let place = config.place()?;
        Self::alone(config, place).await
    }

    async fn alone(config: Config, place: Place) -> Result<Self, CommandError> {
        let lock = match &place {
            Place::Sqlite(file) => {
                let folder = file.parent().unwrap_or(Path::new("/"));
                data_dir(folder)?;
                Some(locked(folder)?)
            }
            Place::Postgres(_) => None,
        };
        let connection = store::open(&place, Share::Alone).await?;
        Ok(Self { connection, config, place, _lock: lock })
    }

    /// Writes where this end stands.
    pub async fn mark(&mut self, standing: Option<&Standing>) -> Result<(), CommandError> {
        let mut write = Write::begin(&mut self.connection).await?;
        standing::write(write.connection(), standing).await?;
        write.commit().await
    }
}

/// A write transaction on one end.
pub(super) struct Write<'c>(&'c mut Connection);

impl<'c> Write<'c> {
    pub async fn begin(connection: &'c mut Connection) -> Result<Self, CommandError> {
        connection.begin().await?;
        Ok(Self(connection))
    }

    pub fn connection(&mut self) -> &mut Connection {
        self.0
    }

    pub async fn commit(self) -> Result<(), CommandError> {
        Ok(self.0.commit().await?)
    }
}

async fn move_vault(source: &mut End, target: &mut End) -> Result<Value, CommandError> {
    if let Some(section) = [&source.config, &target.config].iter().find(|config| config.vaults.is_some()) {
        return Err(refusals::named_vaults(&section.data_dir));
    }
    let mut marks = Marks::of(source, target).await?;
    let seals = Seals::of(source, target, &marks.id).await?;
    marks.begin_or_go_on(keeps(&seals.to, &target.config))?;
    if marks.part != Part::Left {
        plan(&mut source.connection, &seals).await?;
        source.mark(Some(&marks.at_source(Part::Source))).await?;
        reach("the source of a move is marked");
        let copied = fill(source, target, &marks, &seals).await;
        if copied.is_err() && marks.is_new {
            undo(source, &seals).await;
        }
        copied?;
        source.mark(Some(&marks.at_source(Part::Left))).await?;
        reach("the source of a move is left");
    }
    finish(source, target, &marks, &seals).await
}

/// The target never was a vault, so the source may be one again, once the token holds nothing of a move that nobody would
/// know of any more. If any of that fails, the mark stays, and the move is there to be gone on with or called off.
async fn undo(source: &mut End, seals: &Seals) {
    let cleared = match &seals.token {
        Some(token) => token.take_out(&mut source.connection, &seals.to).await.map(drop),
        None => Ok(()),
    };
    let undone = match cleared {
        Ok(()) => source.mark(None).await,
        failed => failed,
    };
    if let Err(error) = undone {
        let error = crate::chain(&error);
        tracing::warn!(error, "the move is not taken back: run it again, or with --call-off");
    }
}

/// Brings keys into the token, copies, and reads back.
async fn fill(source: &mut End, target: &mut End, marks: &Marks, seals: &Seals) -> Result<(), CommandError> {
    bring(&mut source.connection, seals).await?;
    let mut write = Write::begin(&mut target.connection).await?;
    wipe(write.connection()).await?;
    copy(&mut source.connection, write.connection(), seals).await?;
    standing::write(write.connection(), Some(&marks.at_target())).await?;
    reach("the target of a move is written");
    write.commit().await?;
    reach("the target of a move is filled");
    verify(&mut source.connection, &target.place, seals).await
}

/// Keeps the objects in the token, and makes the target a vault, with an entry of the move.
async fn finish(source: &End, target: &mut End, marks: &Marks, seals: &Seals) -> Result<Value, CommandError> {
    let brought = keep(&mut target.connection, seals).await?;
    let detail = json!({
        "operation": "moveVault",
        "from": source.place.to_string(),
        "to": target.place.to_string(),
        "move": marks.id,
        "masterKeyId": seals.to.id().as_str(),
        "versionsIntoToken": brought,
    });
    let event = Event {
        time: rfc3339(jiff::Timestamp::now().as_second()),
        decision: Decision::PolicyChanged,
        subject: target.config.base_url().to_owned(),
        denial: None,
        detail,
    };
    let mut write = Write::begin(&mut target.connection).await?;
    standing::write(write.connection(), None).await?;
    let entries = decisions::append(write.connection(), event).await?;
    write.commit().await?;
    reach("the target of a move is a vault");
    Ok(json!({
        "status": "moved",
        "from": source.place.to_string(),
        "to": target.place.to_string(),
        "move": marks.id,
        "sealedAnew": seals.is_anew(),
        "versionsIntoToken": brought,
        "log": {"entries": entries},
    }))
}

/// The master key of an end whose database names it.
pub(super) fn master_key(config: &Config, id: &str) -> Result<MasterKey, CommandError> {
    Ok(MasterKey::load(&MasterKeyConfig { create: false, ..config.master_key.clone() }, Some(id))?)
}
