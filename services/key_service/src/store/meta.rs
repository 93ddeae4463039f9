//! Single values: which master key sealed this database, the release-signing identity.

use sqlx::sqlite::{SqliteConnection, SqliteExecutor};

use super::StoreError;

/// Name of the master key's id.
pub const MASTER_KEY_ID: &str = "master-key-id";
/// Name of the release-signing identity (JSON; private keys sealed).
pub const SIGNING_IDENTITY: &str = "release-signing-identity";
/// Name of the recovery settings (JSON) that this vault was made with.
pub const RECOVERY: &str = "recovery";

/// Name of the row that is written to prove that the database takes writes.
pub const READINESS: &str = "readiness";

/// Reads a value.
pub async fn read(executor: impl SqliteExecutor<'_>, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(sqlx::query_scalar("SELECT value FROM meta WHERE name = ?")
        .bind(name)
        .fetch_optional(executor)
        .await?)
}

/// Writes a value, in place of an earlier one.
pub async fn write(connection: &mut SqliteConnection, name: &str, value: &[u8]) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        .bind(name)
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}
