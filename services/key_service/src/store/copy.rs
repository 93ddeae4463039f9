//! A copy of the database as it is at one moment, made while a service writes to it.
//!
//! Source: SQLite, "VACUUM INTO": one read transaction, and only what is live is copied, so that a purged key is in no free
//! page of the copy.

use std::path::Path;

use super::backend::Connection;
use super::place::Place;
use super::{StoreError, sqlite};

/// Copies into an empty file. The copy is not synced to the disk: whoever made the file does that.
pub async fn copy(database: &Path, target: &str) -> Result<(), StoreError> {
    let failed = |source: sqlx::Error| StoreError::open(&Place::Sqlite(database.to_owned()), source.into());
    let mut connection = sqlite::look(database).await.map_err(failed)?;
    let copied = sqlx::query("VACUUM INTO ?").bind(target).execute(&mut connection).await;
    Connection::Sqlite(connection).close().await;
    Ok(copied.map(drop)?)
}
