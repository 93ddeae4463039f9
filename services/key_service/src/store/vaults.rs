//! The registry of named vaults, in the default vault's database.

use public_api::vaults::{VaultDeletion, VaultSettings};
use sqlx::FromRow;

use super::backend::{change, on};
use super::{Connection, Reader, StoreError};

/// A named vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultRecord {
    /// In lower case.
    pub name: String,
    /// Random, hex; of this vault and of no other that ever has its name.
    pub id: String,
    /// What the control plane said last.
    pub settings: VaultSettings,
    /// Of a deleted one.
    pub deletion: Option<VaultDeletion>,
    /// Whether its files are being removed.
    pub purging: bool,
}

/// A vault by its name, live or not.
pub async fn find<'c>(reader: impl Into<Reader<'c>>, name: &str) -> Result<Option<VaultRecord>, StoreError> {
    const SQL: &str = "SELECT name, id, settings, deleted, purge_at, purging FROM vaults WHERE name = $1";
    let row: Option<Row> =
        on!(reader, |executor| Ok(sqlx::query_as(SQL).bind(name).fetch_optional(executor).await?))?;
    row.map(Row::record).transpose()
}

/// All vaults, by name.
pub async fn all<'c>(reader: impl Into<Reader<'c>>) -> Result<Vec<VaultRecord>, StoreError> {
    const SQL: &str = "SELECT name, id, settings, deleted, purge_at, purging FROM vaults ORDER BY name";
    let rows: Vec<Row> = on!(reader, |executor| Ok(sqlx::query_as(SQL).fetch_all(executor).await?))?;
    rows.into_iter().map(Row::record).collect()
}

/// A new one.
pub async fn insert(connection: &mut Connection, record: &VaultRecord) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO vaults (name, id, settings) VALUES ($1, $2, $3)";
    change!(connection, SQL, &record.name, &record.id, encoded(&record.settings))?;
    Ok(())
}

/// Other settings, and whether it is deleted.
pub async fn update(connection: &mut Connection, record: &VaultRecord) -> Result<(), StoreError> {
    const SQL: &str =
        "UPDATE vaults SET settings = $1, deleted = $2, purge_at = $3, purging = $4 WHERE id = $5";
    let deletion = record.deletion.as_ref();
    change!(
        connection,
        SQL,
        encoded(&record.settings),
        deletion.map(|deletion| deletion.deleted_date),
        deletion.map(|deletion| deletion.scheduled_purge_date),
        i64::from(record.purging),
        &record.id,
    )?;
    Ok(())
}

/// Gone.
pub async fn remove(connection: &mut Connection, id: &str) -> Result<(), StoreError> {
    change!(connection, "DELETE FROM vaults WHERE id = $1", id)?;
    Ok(())
}

fn encoded(settings: &VaultSettings) -> String {
    serde_json::to_string(settings).expect("settings have only string keys")
}

#[derive(FromRow)]
struct Row {
    name: String,
    id: String,
    settings: String,
    deleted: Option<i64>,
    purge_at: Option<i64>,
    purging: i64,
}

impl Row {
    fn record(self) -> Result<VaultRecord, StoreError> {
        let deletion = self
            .deleted
            .zip(self.purge_at)
            .map(|(deleted_date, scheduled_purge_date)| VaultDeletion { deleted_date, scheduled_purge_date });
        let settings = serde_json::from_str(&self.settings);
        Ok(VaultRecord {
            name: self.name,
            id: self.id,
            settings: settings.map_err(|_| StoreError::Corrupt("set of vault settings"))?,
            deletion,
            purging: self.purging != 0,
        })
    }
}
