//! The only place with SQL: keys, used tokens, generations and the decision log in one SQLite file.
//!
//! WAL with `synchronous = FULL`: what [`Store::write`] returned is on the disk. All writes go through one
//! [`writer`]; reads have connections of their own that cannot write.

pub mod copy;
pub mod decisions;
pub mod keys;
pub mod meta;
pub mod releases;
pub mod rotation;
pub mod snapshot;
pub mod vaults;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};

use writer::Writer;
pub use writer::{BoxFuture, Committed};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/store/migrations");

/// The database, in the data folder.
pub const FILE: &str = "keys.sqlite";

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, or its schema cannot be brought up to date.
    #[error("could not open the key database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A statement failed.
    #[error("a statement on the key database failed")]
    Statement(#[from] sqlx::Error),
    /// The transaction that held the write could not begin or commit; nothing of it happened.
    #[error("a transaction on the key database failed")]
    Transaction(#[source] Arc<sqlx::Error>),
    /// The transaction failed before this write had its turn; nothing of it happened.
    #[error("a transaction on the key database failed before this write had its turn")]
    Undone,
    /// A row that this program did not write like this.
    #[error("the key database holds a {0} that cannot be read")]
    Corrupt(&'static str),
    /// The writer has ended; the process is going down.
    #[error("the key database is closed")]
    Closed,
}

/// The database.
pub struct Store {
    readers: SqlitePool,
    writer: Writer,
}

impl Store {
    /// Opens (or makes) the database and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let options = options(path);
        let mut connection = options.connect().await.map_err(|error| failed(error.into()))?;
        MIGRATIONS.run(&mut connection).await.map_err(|error| failed(error.into()))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.create_if_missing(false).pragma("query_only", "on"));
        Ok(Self { readers, writer: Writer::start(connection) })
    }

    /// Runs `work` in a transaction and returns once it is durable.
    ///
    /// An error of `work` undoes what `work` did, and nothing else.
    pub async fn write<T, F>(&self, work: F) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.writer.run(work).await
    }

    /// Connections for reading.
    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Whether the database answers and the writer lives.
    pub async fn is_healthy(&self) -> bool {
        let readable = sqlx::query("SELECT 1").execute(&self.readers).await.is_ok();
        readable && !self.writer.has_ended()
    }

    /// Whether the writer has ended, after which nothing can be written.
    pub fn has_ended(&self) -> bool {
        self.writer.has_ended()
    }

    /// Ends when the writer does, which it does only when it failed.
    pub async fn ended(&self) {
        self.writer.ended().await;
    }
}

/// For looking at a database that there is, which a service may be writing to.
fn read_only(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // A purged key leaves no bytes behind in free pages.
        .pragma("secure_delete", "on")
}

/// Closes a connection that was used outside the pool.
async fn close(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the key database did not close cleanly");
    }
}
