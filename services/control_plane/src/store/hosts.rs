//! Rows of `hosts`.

use internal_api::host::HostCapacity;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Store, StoreError, Tx, decode, encode, from_column, sql};

/// A host as it last reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRow {
    /// The name in its certificate.
    pub name: String,
    /// What it offers.
    pub capacity: HostCapacity,
    /// Milliseconds since 1970.
    pub synced_at: i64,
    /// Grows with every change of its assignments.
    pub revision: u64,
}

fn host(row: &SqliteRow) -> Result<HostRow, StoreError> {
    Ok(HostRow {
        name: row.get("name"),
        capacity: decode("a host's capacity", row.get("capacity"))?,
        synced_at: row.get("synced_at"),
        revision: from_column(row.get("revision")),
    })
}

async fn all(connection: &mut SqliteConnection) -> Result<Vec<HostRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM hosts ORDER BY name")
        .fetch_all(connection)
        .await
        .map_err(sql("listing hosts"))?;
    rows.iter().map(host).collect()
}

impl Store {
    /// All hosts that ever reported.
    pub async fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(sql("waiting for a connection"))?;
        all(&mut connection).await
    }
}

impl Tx {
    /// All hosts that ever reported.
    pub async fn hosts(&mut self) -> Result<Vec<HostRow>, StoreError> {
        all(self.connection()).await
    }

    /// Notes a host's report and returns its revision.
    pub async fn note_host(
        &mut self,
        name: &str,
        capacity: &HostCapacity,
        now: i64,
    ) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "INSERT INTO hosts (name, capacity, synced_at, revision) VALUES (?, ?, ?, 1)
             ON CONFLICT (name) DO UPDATE SET capacity = excluded.capacity, synced_at = excluded.synced_at
             RETURNING revision",
        )
        .bind(name)
        .bind(encode(capacity))
        .bind(now)
        .fetch_one(self.connection())
        .await
        .map_err(sql("noting a host's report"))?;
        Ok(from_column(row.get("revision")))
    }

    /// Says that a host's assignments changed; returns the new revision.
    pub async fn bump_revision(&mut self, name: &str) -> Result<u64, StoreError> {
        let row = sqlx::query("UPDATE hosts SET revision = revision + 1 WHERE name = ? RETURNING revision")
            .bind(name)
            .fetch_one(self.connection())
            .await
            .map_err(sql("counting a host's revision"))?;
        Ok(from_column(row.get("revision")))
    }

    /// A host's revision; 0 if it never reported.
    pub async fn revision(&mut self, name: &str) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT revision FROM hosts WHERE name = ?")
            .bind(name)
            .fetch_optional(self.connection())
            .await
            .map_err(sql("reading a host's revision"))?;
        Ok(row.map_or(0, |row| from_column(row.get("revision"))))
    }
}
