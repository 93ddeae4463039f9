//! A copy of the database as it is at one moment, made while a service writes to it.
//!
//! Source: SQLite, "VACUUM INTO": one read transaction, and only what is live is copied, so that a purged key is in no free
//! page of the copy.

use std::path::Path;

use sqlx::ConnectOptions as _;

use super::{StoreError, read_only};

/// Copies into an empty file. The copy is not synced to the disk: whoever made the file does that.
pub async fn copy(database: &Path, target: &str) -> Result<(), StoreError> {
    let failed = |source: sqlx::Error| StoreError::Open { path: database.to_owned(), source: source.into() };
    let mut connection = read_only(database).connect().await.map_err(failed)?;
    let copied = sqlx::query("VACUUM INTO ?").bind(target).execute(&mut connection).await;
    super::close(connection).await;
    Ok(copied.map(drop)?)
}
