//! The whole database at one moment, to be looked at and not changed: by `backup`, and by `check`.
//!
//! One read transaction, so a service may write meanwhile. No migration runs: what an older program wrote is told, not
//! changed.

use super::backend::{Connection, on};
use super::place::Place;
use super::postgres::{self, Share};
use super::{StoreError, sqlite};

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
    pub connection: Connection,
}

impl Snapshot {
    /// Opens a database that there is.
    pub async fn open(place: &Place) -> Result<Self, StoreError> {
        let mut connection = match place {
            Place::Sqlite(path) => {
                let opened = sqlite::look(path).await;
                Connection::Sqlite(opened.map_err(|error| StoreError::open(place, error.into()))?)
            }
            Place::Postgres(server) => {
                let opened = postgres::connect(server, Share::Look).await;
                Connection::Postgres(opened.map_err(|error| StoreError::open(place, error.into()))?)
            }
        };
        begin(&mut connection).await?;
        Ok(Self { connection })
    }

    /// Ends the transaction.
    pub async fn close(self) {
        self.connection.close().await;
    }

    /// What the database finds wrong with its own structures, and with rows that refer to others; nothing if all is well.
    /// PostgreSQL has constraints that it holds itself; its pages are `pg_amcheck`'s to check.
    pub async fn damage(&mut self) -> Result<Option<String>, StoreError> {
        let Connection::Sqlite(file) = &mut self.connection else { return Ok(None) };
        let found: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut *file).await?;
        if found != "ok" {
            return Ok(Some(found));
        }
        let orphan = sqlx::query("PRAGMA foreign_key_check").fetch_optional(file).await?;
        Ok(orphan.map(|_| "a row refers to a key that there is not".to_owned()))
    }

    /// Whose schema it is, by the migrations that ran.
    pub async fn schema(&mut self) -> Result<Schema, StoreError> {
        if !self.has_migrations().await? {
            return Ok(Schema::Other(0));
        }
        let ran = "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version";
        let ran: Vec<(i64, Vec<u8>)> =
            on!(&mut self.connection, |executor| Ok(sqlx::query_as(ran).fetch_all(executor).await?))?;
        let migrations = match self.connection {
            Connection::Sqlite(_) => &sqlite::MIGRATIONS,
            Connection::Postgres(_) => &postgres::MIGRATIONS,
        };
        let ours = migrations.iter().map(|migration| (migration.version, migration.checksum.to_vec()));
        let newest = ran.last().map_or(0, |(version, _)| *version);
        Ok(if ours.eq(ran) { Schema::Ours } else { Schema::Other(newest) })
    }

    async fn has_migrations(&mut self) -> Result<bool, StoreError> {
        let sql = match self.connection {
            Connection::Sqlite(_) => {
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')"
            }
            Connection::Postgres(_) => {
                "SELECT EXISTS (SELECT 1 FROM pg_tables
                     WHERE schemaname = current_schema() AND tablename = '_sqlx_migrations')"
            }
        };
        on!(&mut self.connection, |executor| Ok(sqlx::query_scalar(sql).fetch_one(executor).await?))
    }

    /// How many of what there is.
    pub async fn numbers(&mut self) -> Result<Numbers, StoreError> {
        let sql = "SELECT (SELECT COUNT(*) FROM keys WHERE deleted IS NULL) AS live,
                          (SELECT COUNT(*) FROM keys WHERE deleted IS NOT NULL) AS deleted,
                          (SELECT COUNT(*) FROM key_versions) AS versions";
        on!(&mut self.connection, |executor| Ok(sqlx::query_as(sql).fetch_one(executor).await?))
    }
}

async fn begin(connection: &mut Connection) -> Result<(), StoreError> {
    match connection {
        Connection::Sqlite(file) => sqlx::query("BEGIN").execute(file).await.map(drop)?,
        Connection::Postgres(server) => {
            let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            sqlx::query(sql).execute(server).await.map(drop)?;
        }
    }
    Ok(())
}
