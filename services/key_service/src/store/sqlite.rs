//! The embedded database: one file, WAL with `synchronous = FULL`, one service at a time.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/store/migrations");

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;
/// How much of the file readers see in the kernel's own pages: to copy each into a small cache of theirs made a get from a
/// vault of 100,000 keys a fifth slower than from one of 100.
const MAPPED: &str = "1073741824";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Opens (or makes) the file and brings its schema up to date.
pub async fn open(path: &Path) -> Result<SqliteConnection, Failure> {
    let mut connection = options(path).connect().await?;
    MIGRATIONS.run(&mut connection).await?;
    Ok(connection)
}

/// Connections that cannot write.
pub fn readers(path: &Path) -> SqlitePool {
    let options =
        options(path).create_if_missing(false).pragma("query_only", "on").pragma("mmap_size", MAPPED);
    SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options)
}

/// For looking at a database that there is, which a service may be writing to.
pub async fn look(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
    options.connect().await
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
