//! Rotation policies, by name.

use sqlx::sqlite::{SqliteConnection, SqliteExecutor};

use super::StoreError;

/// A policy as stored: JSON of the wire form.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredPolicy {
    /// The key's name.
    pub name: String,
    /// JSON.
    pub policy: String,
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub updated: i64,
    /// The version whose coming end is on record.
    pub notified: Option<String>,
}

const COLUMNS: &str = "r.name, r.policy, r.created, r.updated, r.notified";

/// The policy of a name, if it has one.
pub async fn find(executor: impl SqliteExecutor<'_>, name: &str) -> Result<Option<StoredPolicy>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM rotation_policies r WHERE r.name = ?");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(name).fetch_optional(executor).await?)
}

/// The policies of all live names.
pub async fn live(executor: impl SqliteExecutor<'_>) -> Result<Vec<StoredPolicy>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM rotation_policies r JOIN keys k ON k.name = r.name
         WHERE k.deleted IS NULL ORDER BY r.name"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(executor).await?)
}

/// Sets the policy of a name that there is.
pub async fn put(
    connection: &mut SqliteConnection,
    name: &str,
    policy: &str,
    (created, updated): (i64, i64),
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO rotation_policies (name, policy, created, updated) VALUES (?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET policy = excluded.policy, updated = excluded.updated, notified = NULL",
    )
    .bind(name)
    .bind(policy)
    .bind(created)
    .bind(updated)
    .execute(connection)
    .await?;
    Ok(())
}

/// Remembers that the coming end of a version is on record.
pub async fn notified(
    connection: &mut SqliteConnection,
    name: &str,
    version: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE rotation_policies SET notified = ? WHERE name = ?")
        .bind(version)
        .bind(name)
        .execute(connection)
        .await?;
    Ok(())
}
