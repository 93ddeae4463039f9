//! Single values: which master key sealed this database, the release-signing identity.

use super::backend::{change, on};
use super::{Connection, Reader, StoreError};

/// Name of the master key's id.
pub const MASTER_KEY_ID: &str = "master-key-id";
/// Name of the release-signing identity (JSON; private keys sealed).
pub const SIGNING_IDENTITY: &str = "release-signing-identity";
/// Name of the recovery settings (JSON) that this vault was made with.
pub const RECOVERY: &str = "recovery";

/// Name of the row that is written to prove that the database takes writes.
pub const READINESS: &str = "readiness";

/// Name of the row that a move of the vault leaves at both ends.
pub const MOVE: &str = "move";

/// Reads a value.
pub async fn read<'c>(reader: impl Into<Reader<'c>>, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    on!(reader, |executor| {
        let value = sqlx::query_scalar("SELECT value FROM meta WHERE name = $1").bind(name);
        Ok(value.fetch_optional(executor).await?)
    })
}

/// Writes a value, in place of an earlier one.
pub async fn write(connection: &mut Connection, name: &str, value: &[u8]) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) \
                       ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    change!(connection, SQL, name, value)?;
    Ok(())
}

/// Removes a value.
pub async fn remove(connection: &mut Connection, name: &str) -> Result<(), StoreError> {
    change!(connection, "DELETE FROM meta WHERE name = $1", name)?;
    Ok(())
}

/// Puts `new` where `seen` was read a moment ago, unless another service was faster; returns what is there now.
pub async fn replace(
    connection: &mut Connection,
    name: &str,
    seen: Option<&[u8]>,
    new: Vec<u8>,
) -> Result<Vec<u8>, StoreError> {
    let present = read(&mut *connection, name).await?;
    match present {
        Some(present) if seen != Some(&present) => Ok(present),
        _ => write(connection, name, &new).await.map(|()| new),
    }
}
