//! The registry of named vaults, in the default vault's database.

use public_api::vaults::{VaultDeletion, VaultSettings};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};

use super::StoreError;

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
pub async fn find(readers: &SqlitePool, name: &str) -> Result<Option<VaultRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM vaults WHERE name = ?").bind(name).fetch_optional(readers).await?;
    row.as_ref().map(record).transpose()
}

/// All vaults, by name.
pub async fn all(readers: &SqlitePool) -> Result<Vec<VaultRecord>, StoreError> {
    let rows = sqlx::query("SELECT * FROM vaults ORDER BY name").fetch_all(readers).await?;
    rows.iter().map(record).collect()
}

/// A new one.
pub async fn insert(connection: &mut SqliteConnection, record: &VaultRecord) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO vaults (name, id, settings) VALUES (?, ?, ?)")
        .bind(&record.name)
        .bind(&record.id)
        .bind(encoded(&record.settings))
        .execute(connection)
        .await?;
    Ok(())
}

/// Other settings, and whether it is deleted.
pub async fn update(connection: &mut SqliteConnection, record: &VaultRecord) -> Result<(), StoreError> {
    let deletion = record.deletion.as_ref();
    sqlx::query("UPDATE vaults SET settings = ?, deleted = ?, purge_at = ?, purging = ? WHERE id = ?")
        .bind(encoded(&record.settings))
        .bind(deletion.map(|deletion| deletion.deleted_date))
        .bind(deletion.map(|deletion| deletion.scheduled_purge_date))
        .bind(i64::from(record.purging))
        .bind(&record.id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Gone.
pub async fn remove(connection: &mut SqliteConnection, id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM vaults WHERE id = ?").bind(id).execute(connection).await?;
    Ok(())
}

fn encoded(settings: &VaultSettings) -> String {
    serde_json::to_string(settings).expect("settings have only string keys")
}

fn record(row: &SqliteRow) -> Result<VaultRecord, StoreError> {
    let settings: String = row.try_get("settings")?;
    let (deleted, purge_at): (Option<i64>, Option<i64>) = (row.try_get("deleted")?, row.try_get("purge_at")?);
    let deletion = deleted
        .zip(purge_at)
        .map(|(deleted_date, scheduled_purge_date)| VaultDeletion { deleted_date, scheduled_purge_date });
    Ok(VaultRecord {
        name: row.try_get("name")?,
        id: row.try_get("id")?,
        settings: serde_json::from_str(&settings)
            .map_err(|_| StoreError::Corrupt("set of vault settings"))?,
        deletion,
        purging: row.try_get::<i64, _>("purging")? != 0,
    })
}
