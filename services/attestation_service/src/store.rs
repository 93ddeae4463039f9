//! Durable state: used nonces and the decision log. The only place with SQL.

pub mod change;
mod collateral;
mod decision_log;
mod nonces;
mod providers;
mod readiness;

use std::path::Path;
use std::time::Duration;

use public_api::decision_log::ChainError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection, SqlitePool};

pub use change::{Change, StoredEvidence, StoredPolicy};
pub use collateral::{Learnt, StoredIssuer, StoredList, StoredVcek};
pub use decision_log::Record;
use decision_log::Writer;
pub use providers::{StoredInForce, StoredProvider};

/// Name of the database in the data directory.
const DATABASE: &str = "attestation.sqlite";

/// The service's database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
    writer: Writer,
}

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("{doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The database is of another version of the service.
    #[error("bringing the database to this version's schema")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The stored decision log does not hold together: somebody changed it.
    #[error("the stored decision log was changed")]
    Chain(#[from] ChainError),
    /// A stored entry cannot be read.
    #[error("a stored entry of the decision log cannot be read")]
    Entry(#[from] serde_json::Error),
    /// The writer has stopped, because the process is ending.
    #[error("the decision log is closed")]
    Closed,
    /// The transaction in which an entry was to be written failed; the cause was logged once for all of its entries.
    #[error("the decision log could not be written")]
    NotWritten,
}

impl StoreError {
    fn database(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}

impl Store {
    /// Opens or makes the database in `directory` and checks the chain of the decision log.
    pub async fn open(directory: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(directory.join(DATABASE))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let opening = || StoreError::database("opening the database");
        // A file does not go away like a server: no connection is tried before it is used.
        let pool = SqlitePoolOptions::new().max_connections(4).test_before_acquire(false);
        let pool = pool.connect_with(options.clone()).await.map_err(opening())?;
        sqlx::migrate!("src/store/migrations").run(&pool).await?;
        let own = SqliteConnection::connect_with(&options).await.map_err(opening())?;
        let writer = Writer::start(&pool, own).await?;
        Ok(Self { pool, writer })
    }
}

#[cfg(test)]
mod tests;
