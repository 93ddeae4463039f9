//! SQLite and PostgreSQL behind one type: a statement is written once, with `$1` placeholders, and [`on`] runs it on
//! whichever database there is.
//!
//! Not sqlx's `Any`: it boxes every value, and a statement would pay for it on SQLite, where a get and a log entry are a
//! few microseconds.

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::StoreError;

/// Runs the body with the executor of whichever database there is: `on!(reader, |executor| sqlx::query(...)...)`. The body
/// is a `Result`, and may use `?`.
macro_rules! on {
    ($reader:expr, |$executor:ident| $body:expr) => {
        match Into::<$crate::store::backend::Reader<'_>>::into($reader) {
            $crate::store::backend::Reader::Sqlite($executor) => {
                $crate::store::backend::typed(async { $body }).await
            }
            $crate::store::backend::Reader::SqlitePool($executor) => {
                $crate::store::backend::typed(async { $body }).await
            }
            $crate::store::backend::Reader::Postgres($executor) => {
                $crate::store::backend::typed(async { $body }).await
            }
            $crate::store::backend::Reader::PostgresPool($executor) => {
                $crate::store::postgres::bounded(async { $body }).await
            }
        }
    };
}

/// Runs a statement that changes something, in a transaction; the number of rows that it changed.
macro_rules! change {
    ($connection:expr, $sql:expr $(, $value:expr)* $(,)?) => {
        match &mut *$connection {
            $crate::store::Connection::Sqlite(connection) => {
                let done = sqlx::query($sql)$(.bind($value))*.execute(connection).await;
                done.map(|done| done.rows_affected())
            }
            $crate::store::Connection::Postgres(connection) => {
                let done = sqlx::query($sql)$(.bind($value))*.execute(connection).await;
                done.map(|done| done.rows_affected())
            }
        }
    };
}

/// A connection in a transaction.
pub enum Connection {
    /// To the file.
    Sqlite(SqliteConnection),
    /// To the server.
    Postgres(PgConnection),
}

/// Connections for reading.
pub enum Readers {
    /// To the file.
    Sqlite(SqlitePool),
    /// To the server.
    Postgres(PgPool),
}

/// Something that a statement can be read from: the readers, or the connection of a transaction.
pub enum Reader<'c> {
    /// A transaction on the file.
    Sqlite(&'c mut SqliteConnection),
    /// A transaction on the server.
    Postgres(&'c mut PgConnection),
    /// Any connection to the file.
    SqlitePool(&'c SqlitePool),
    /// Any connection to the server.
    PostgresPool(&'c PgPool),
}

impl<'c> From<&'c mut Connection> for Reader<'c> {
    fn from(connection: &'c mut Connection) -> Self {
        match connection {
            Connection::Sqlite(connection) => Self::Sqlite(connection),
            Connection::Postgres(connection) => Self::Postgres(connection),
        }
    }
}

impl<'c> From<&'c Readers> for Reader<'c> {
    fn from(readers: &'c Readers) -> Self {
        match readers {
            Readers::Sqlite(pool) => Self::SqlitePool(pool),
            Readers::Postgres(pool) => Self::PostgresPool(pool),
        }
    }
}

/// Which database; for the few statements that are spelled differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The file.
    Sqlite,
    /// The server.
    Postgres,
}

impl Dialect {
    /// The column of `keys k` that holds a name as it was spelled at its creation.
    pub const fn spelling(self) -> &'static str {
        match self {
            Self::Sqlite => "k.name",
            Self::Postgres => "k.spelling",
        }
    }

    /// The column of `key_versions v` that grows with each row.
    pub const fn row(self) -> &'static str {
        match self {
            Self::Sqlite => "v.rowid",
            Self::Postgres => "v.row_number",
        }
    }
}

impl Reader<'_> {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) | Self::SqlitePool(_) => Dialect::Sqlite,
            Self::Postgres(_) | Self::PostgresPool(_) => Dialect::Postgres,
        }
    }
}

impl Connection {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Begins a transaction that writes, outside of a service. Nobody else writes: the caller has the database alone.
    pub(crate) async fn begin(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(file) => sqlx::query("BEGIN IMMEDIATE").execute(file).await.map(drop)?,
            Self::Postgres(server) => sqlx::query("BEGIN").execute(server).await.map(drop)?,
        }
        Ok(())
    }

    /// Commits it.
    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        change!(self, "COMMIT")?;
        Ok(())
    }

    /// Closes a connection that was used outside a pool.
    pub(crate) async fn close(self) {
        let closed = match self {
            Self::Sqlite(connection) => sqlx::Connection::close(connection).await,
            Self::Postgres(connection) => sqlx::Connection::close(connection).await,
        };
        if let Err(error) = closed {
            tracing::warn!(%error, "the key database did not close cleanly");
        }
    }
}

/// A name as it is compared: names differ without regard to case (ASCII, as they are made of nothing else).
pub(super) fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// The same of a name that somebody asks for.
pub(super) fn sought(name: &str) -> String {
    folded(text(name))
}

/// A text that somebody asks for. PostgreSQL's text has no NUL, and nothing that is stored here is empty: it is not found.
pub(super) fn text(asked: &str) -> &str {
    if asked.contains('\0') { "" } else { asked }
}

/// Gives the body of a statement its type.
pub(super) async fn typed<T>(body: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    body.await
}

pub(super) use {change, on};
