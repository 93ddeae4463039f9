//! The whole database at one moment, to be looked at and not changed: by `backup`, and by `check`.
//!
//! One read transaction, so a service may write meanwhile. No migration runs: what an older program wrote is told, not
//! changed.

use std::path::Path;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnection;

use super::{MIGRATIONS, StoreError, read_only};

/// How many of what there is.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Numbers {
    /// Names that are live.
    pub live: i64,
    /// Names that can be recovered.
    pub deleted: i64,
    /// Versions of all of them.
    pub versions: i64,
}

/// Whose schema a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// This program's.
    Ours,
    /// This number, of an older or a newer program; 0 for no schema at all.
    Other(i64),
}

/// An open read transaction.
pub struct Snapshot {
    /// For the readers of the other files here.
    pub connection: SqliteConnection,
}

impl Snapshot {
    /// Opens a database that there is.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source: sqlx::Error| StoreError::Open { path: path.to_owned(), source: source.into() };
        let mut connection = read_only(path).connect().await.map_err(failed)?;
        sqlx::query("BEGIN").execute(&mut connection).await?;
        Ok(Self { connection })
    }

    /// Ends the transaction.
    pub async fn close(self) {
        super::close(self.connection).await;
    }

    /// What SQLite finds wrong with its own structures, and with rows that refer to others; nothing if all is well.
    pub async fn damage(&mut self) -> Result<Option<String>, StoreError> {
        let found: String =
            sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut self.connection).await?;
        if found != "ok" {
            return Ok(Some(found));
        }
        let orphan = sqlx::query("PRAGMA foreign_key_check").fetch_optional(&mut self.connection).await?;
        Ok(orphan.map(|_| "a row refers to a key that there is not".to_owned()))
    }

    /// Whose schema it is, by the migrations that ran.
    pub async fn schema(&mut self) -> Result<Schema, StoreError> {
        let tables = "SELECT COUNT(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
        let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut self.connection).await?;
        if tables == 0 {
            return Ok(Schema::Other(0));
        }
        let ran = "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version";
        let ran: Vec<(i64, Vec<u8>)> = sqlx::query_as(ran).fetch_all(&mut self.connection).await?;
        let ours = MIGRATIONS.iter().map(|migration| (migration.version, migration.checksum.to_vec()));
        let newest = ran.last().map_or(0, |(version, _)| *version);
        Ok(if ours.eq(ran) { Schema::Ours } else { Schema::Other(newest) })
    }

    /// How many of what there is.
    pub async fn numbers(&mut self) -> Result<Numbers, StoreError> {
        let sql = "SELECT (SELECT COUNT(*) FROM keys WHERE deleted IS NULL) AS live,
                          (SELECT COUNT(*) FROM keys WHERE deleted IS NOT NULL) AS deleted,
                          (SELECT COUNT(*) FROM key_versions) AS versions";
        Ok(sqlx::query_as(sql).fetch_one(&mut self.connection).await?)
    }
}
