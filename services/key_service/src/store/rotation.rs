//! Rotation policies, by name.

use super::backend::{change, folded, on};
use super::{Connection, Reader, StoreError};

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

const COLUMNS: &str = "r.policy, r.created, r.updated, r.notified";

/// The policy of a name, if it has one.
pub async fn find<'c>(reader: impl Into<Reader<'c>>, name: &str) -> Result<Option<StoredPolicy>, StoreError> {
    let sql = format!("SELECT r.name, {COLUMNS} FROM rotation_policies r WHERE r.name = $1");
    on!(reader, |executor| {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(folded(name));
        Ok(query.fetch_optional(executor).await?)
    })
}

/// The policies of all live names, each as the name was spelled at its creation.
pub async fn live<'c>(reader: impl Into<Reader<'c>>) -> Result<Vec<StoredPolicy>, StoreError> {
    let reader = reader.into();
    let sql = format!(
        "SELECT {} AS name, {COLUMNS} FROM rotation_policies r JOIN keys k ON k.name = r.name
         WHERE k.deleted IS NULL ORDER BY k.name",
        reader.dialect().spelling()
    );
    on!(reader, |executor| Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(executor).await?))
}

/// Sets the policy of a name that there is.
pub async fn put(
    connection: &mut Connection,
    name: &str,
    policy: &str,
    (created, updated): (i64, i64),
) -> Result<(), StoreError> {
    const SQL: &str =
        "INSERT INTO rotation_policies (name, policy, created, updated) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET policy = excluded.policy, updated = excluded.updated, notified = NULL";
    change!(connection, SQL, folded(name), policy, created, updated)?;
    Ok(())
}

/// Remembers that the coming end of a version is on record. Returns whether it was not yet: of two services that see it
/// at the same time, one records it.
pub async fn notified(connection: &mut Connection, name: &str, version: &str) -> Result<bool, StoreError> {
    const SQL: &str = "UPDATE rotation_policies SET notified = $1 \
                       WHERE name = $2 AND (notified IS NULL OR notified <> $1)";
    Ok(change!(connection, SQL, version, folded(name))? > 0)
}
