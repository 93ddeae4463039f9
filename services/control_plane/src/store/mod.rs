//! The only place with SQL: SQLite, WAL, `synchronous=FULL`.
//!
//! One connection writes, in `BEGIN IMMEDIATE` transactions; a few others read. Each commit wakes everybody who waits for
//! a change ([`Store::changes`]): that shortens waiting and is never needed for correctness.

mod hosts;
mod operations;
mod resources;
mod vms;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::watch;

pub use hosts::HostRow;
pub use operations::{OperationRow, Verb};
pub use resources::{FailureRow, NewResource, Resource};
pub use vms::{Milestones, VmRow};

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("the database failed while {doing}")]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// SQLite's answer.
        #[source]
        source: sqlx::Error,
    },
    /// A newer program made the file.
    #[error("the database has schema version {found}; this program knows versions up to {known}")]
    Newer {
        /// The file's version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A column holds JSON that this version does not understand.
    #[error("the database holds {what} that cannot be read")]
    Content {
        /// Which column.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

fn sql(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Sql { doing, source }
}

fn decode<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Content { what, source })
}

fn encode(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("stored types have only string keys")
}

/// SQLite keeps signed 64-bit integers; generations and revisions count from 1 and never come near the limit.
fn to_column(number: u64) -> i64 {
    i64::try_from(number).expect("a counter that grows by one never reaches 2^63")
}

fn from_column(number: i64) -> u64 {
    u64::try_from(number).expect("the schema's checks keep counters at 0 or above")
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    changes: watch::Sender<u64>,
}

/// A write transaction. Dropping it rolls back.
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Sqlite>,
    changes: watch::Sender<u64>,
}

impl Store {
    /// Opens, or makes, the database file.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(sql("opening the file"))?;
        prepare(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .map_err(sql("opening the file"))?;
        Ok(Self { writer, readers, changes: watch::Sender::new(0) })
    }

    /// Begins a write transaction; waits for the one before it.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let inner =
            self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(sql("beginning a transaction"))?;
        Ok(Tx { inner, changes: self.changes.clone() })
    }

    /// A receiver that sees every commit.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Closes all connections; the write-ahead log is folded into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Version of `schema.sql`; grows with every change that an older program would not understand.
const SCHEMA_VERSION: i64 = 1;

/// Makes the tables of a new file; refuses the file of a newer program.
async fn prepare(writer: &SqlitePool) -> Result<(), StoreError> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(writer)
        .await
        .map_err(sql("reading the schema's version"))?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::Newer { found, known: SCHEMA_VERSION });
    }
    sqlx::raw_sql(include_str!("schema.sql")).execute(writer).await.map_err(sql("making the tables"))?;
    sqlx::query("PRAGMA user_version = 1")
        .execute(writer)
        .await
        .map_err(sql("noting the schema's version"))?;
    Ok(())
}

impl Tx {
    /// Makes the transaction durable, then wakes those who wait for changes.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.inner.commit().await.map_err(sql("committing"))?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.inner
    }
}
