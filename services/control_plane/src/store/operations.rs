//! Rows of `operations`.

use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::{Store, StoreError, Tx, from_column, sql, to_column};

/// How long an operation can be asked about.
const KEPT_MILLIS: i64 = 7 * 24 * 3600 * 1000;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// The result is the resource.
    Write,
    /// The result is the resource's absence.
    Delete,
    /// `start`, `powerOff`, ...: no result.
    Action,
}

impl Verb {
    fn column(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Action => "action",
        }
    }

    fn from_column(text: &str) -> Self {
        match text {
            "write" => Self::Write,
            "delete" => Self::Delete,
            _ => Self::Action,
        }
    }
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRow {
    /// GUID.
    pub id: String,
    /// Subscription in lower case.
    pub subscription: String,
    /// Key of the resource.
    pub resource_key: String,
    /// Life of the resource.
    pub incarnation: String,
    /// Generation that ends the operation.
    pub generation: u64,
    /// What it does.
    pub verb: Verb,
    /// Milliseconds since 1970.
    pub started_at: i64,
}

impl Store {
    /// The operation with that id.
    pub async fn operation(&self, id: &str) -> Result<Option<OperationRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM operations WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.readers)
            .await
            .map_err(sql("reading an operation"))?;
        Ok(row.map(|row| OperationRow {
            id: row.get("id"),
            subscription: row.get("subscription"),
            resource_key: row.get("resource_key"),
            incarnation: row.get("incarnation"),
            generation: from_column(row.get("generation")),
            verb: Verb::from_column(row.get("verb")),
            started_at: row.get("started_at"),
        }))
    }
}

impl Tx {
    /// Writes an operation, and forgets those that nobody can still be polling.
    pub async fn insert_operation(&mut self, operation: &OperationRow) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM operations WHERE started_at < ?")
            .bind(operation.started_at - KEPT_MILLIS)
            .execute(self.connection())
            .await
            .map_err(sql("forgetting old operations"))?;
        sqlx::query(
            "INSERT INTO operations (id, subscription, resource_key, incarnation, generation, verb, started_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&operation.id)
        .bind(&operation.subscription)
        .bind(&operation.resource_key)
        .bind(&operation.incarnation)
        .bind(to_column(operation.generation))
        .bind(operation.verb.column())
        .bind(operation.started_at)
        .execute(self.connection())
        .await
        .map_err(sql("writing an operation"))?;
        Ok(())
    }
}
