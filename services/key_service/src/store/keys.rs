//! Keys and their versions.

use std::collections::BTreeMap;

use public_api::keys::KeyReleasePolicy;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteExecutor, SqliteRow};

use super::StoreError;
use crate::crypto::ec::{Curve, EcPoint};
use crate::crypto::kind::{KeyType, PublicKey};
use crate::crypto::oct::OctBits;
use crate::crypto::rsa::PublicParts;
use crate::crypto::seal::Sealed;

/// One version of a key, as stored. Everything but `sealed` is public.
#[derive(Clone)]
pub struct KeyRecord {
    /// Name, in the spelling of its creation.
    pub name: String,
    /// 32 lower-case hex characters.
    pub version: String,
    /// Type, as Key Vault writes it.
    pub key_type: KeyType,
    /// The public part.
    pub public: PublicKey,
    /// Permitted operations.
    pub key_ops: Vec<String>,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// A disabled key answers no operation.
    pub enabled: bool,
    /// Before this the key decrypts, unwraps and verifies only.
    pub not_before: Option<i64>,
    /// From this on, too.
    pub expires: Option<i64>,
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub updated: i64,
    /// Grows with each change.
    pub revision: i64,
    /// Whether it may be released.
    pub exportable: bool,
    /// The policy of an exportable key.
    pub policy: Option<KeyReleasePolicy>,
    /// The private key.
    pub sealed: Sealed,
}

/// Whether a name is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameState {
    /// Never used, or purged.
    Free,
    /// Has versions.
    Live,
    /// Deleted, can be recovered until `purge_at`.
    Deleted {
        /// When it was deleted.
        deleted: i64,
        /// When it will be purged.
        purge_at: i64,
    },
}

const COLUMNS: &str = "k.name, v.version, v.kty, v.modulus, v.exponent, v.curve, v.point, v.bits, v.key_ops, v.tags, v.enabled, \
     v.not_before, v.expires, v.created, v.updated, v.revision, v.exportable, v.policy, v.policy_type, v.policy_immutable, v.sealed";

/// Which names are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    /// Keys that are not deleted.
    Live,
    /// Deleted keys.
    Deleted,
}

impl Among {
    fn condition(self) -> &'static str {
        match self {
            Among::Live => "k.deleted IS NULL",
            Among::Deleted => "k.deleted IS NOT NULL",
        }
    }
}

/// How the name is used.
pub async fn name_state(executor: impl SqliteExecutor<'_>, name: &str) -> Result<NameState, StoreError> {
    let row: Option<(Option<i64>, Option<i64>)> =
        sqlx::query_as("SELECT deleted, purge_at FROM keys WHERE name = ?")
            .bind(name)
            .fetch_optional(executor)
            .await?;
    Ok(match row {
        None => NameState::Free,
        Some((Some(deleted), Some(purge_at))) => NameState::Deleted { deleted, purge_at },
        Some(_) => NameState::Live,
    })
}

/// A version of a key; the newest one if `version` is `None`.
pub async fn find(
    executor: impl SqliteExecutor<'_>,
    among: Among,
    name: &str,
    version: Option<&str>,
) -> Result<Option<KeyRecord>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM key_versions v JOIN keys k ON k.name = v.name
         WHERE k.name = ?1 AND (?2 IS NULL OR v.version = ?2) AND {} ORDER BY v.number DESC LIMIT 1",
        among.condition()
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(name).bind(version).fetch_optional(executor).await?;
    row.as_ref().map(record).transpose()
}

/// Whether this is the newest version of a live name.
pub async fn is_newest(executor: impl SqliteExecutor<'_>, key: &KeyRecord) -> Result<bool, StoreError> {
    let newest: Option<String> = sqlx::query_scalar(
        "SELECT v.version FROM key_versions v JOIN keys k ON k.name = v.name
         WHERE k.name = ? AND k.deleted IS NULL ORDER BY v.number DESC LIMIT 1",
    )
    .bind(&key.name)
    .fetch_optional(executor)
    .await?;
    Ok(newest.as_ref() == Some(&key.version))
}

/// Whether one version of a name was made after another.
pub async fn is_later(
    executor: impl SqliteExecutor<'_>,
    than: &KeyRecord,
    key: &KeyRecord,
) -> Result<bool, StoreError> {
    let later: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM key_versions a JOIN key_versions b ON b.name = a.name AND b.number > a.number
         WHERE a.name = ? AND a.version = ? AND b.version = ?",
    )
    .bind(&than.name)
    .bind(&than.version)
    .bind(&key.version)
    .fetch_optional(executor)
    .await?;
    Ok(later.is_some())
}

/// The newest version of up to `limit` keys whose names follow `after`, by name.
pub async fn newest(
    executor: impl SqliteExecutor<'_>,
    among: Among,
    after: &str,
    limit: u32,
) -> Result<Vec<KeyRecord>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM key_versions v JOIN keys k ON k.name = v.name
         WHERE k.name > ? AND {} AND v.number = (SELECT MAX(number) FROM key_versions w WHERE w.name = v.name)
         ORDER BY k.name LIMIT ?",
        among.condition()
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after).bind(limit).fetch_all(executor).await?;
    rows.iter().map(record).collect()
}

/// The version that was stored last, deleted or not.
pub async fn last_written(executor: impl SqliteExecutor<'_>) -> Result<Option<KeyRecord>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM key_versions v JOIN keys k ON k.name = v.name ORDER BY v.rowid DESC LIMIT 1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_optional(executor).await?;
    row.as_ref().map(record).transpose()
}

/// Up to `limit` versions behind a row number, deleted or not, each with its own.
pub async fn after_row(
    executor: impl SqliteExecutor<'_>,
    row: i64,
    limit: u32,
) -> Result<Vec<(i64, KeyRecord)>, StoreError> {
    let sql = format!(
        "SELECT v.rowid AS row, {COLUMNS} FROM key_versions v JOIN keys k ON k.name = v.name
         WHERE v.rowid > ? ORDER BY v.rowid LIMIT ?"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(row).bind(limit).fetch_all(executor).await?;
    rows.iter().map(|row| Ok((row.try_get("row")?, record(row)?))).collect()
}

/// Every version of a live key, oldest first.
pub async fn versions(executor: impl SqliteExecutor<'_>, name: &str) -> Result<Vec<KeyRecord>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM key_versions v JOIN keys k ON k.name = v.name
         WHERE k.name = ? AND k.deleted IS NULL ORDER BY v.number"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(name).fetch_all(executor).await?;
    rows.iter().map(record).collect()
}

/// Adds a version (and the name, if it is new).
pub async fn insert(connection: &mut SqliteConnection, key: &KeyRecord) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO keys (name, created) VALUES (?, ?) ON CONFLICT (name) DO NOTHING")
        .bind(&key.name)
        .bind(key.created)
        .execute(&mut *connection)
        .await?;
    let policy = key.policy.as_ref();
    let public = PublicColumns::of(&key.public);
    sqlx::query(
        "INSERT INTO key_versions (name, version, number, kty, modulus, exponent, curve, point, bits, key_ops, tags,
             enabled, not_before, expires, created, updated, exportable, policy, policy_type, policy_immutable, sealed)
         VALUES (?1, ?2, (SELECT COALESCE(MAX(number), 0) + 1 FROM key_versions WHERE name = ?1), ?3, ?4, ?5, ?6, ?7,
             ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
    )
    .bind(&key.name)
    .bind(&key.version)
    .bind(key.key_type.name())
    .bind(public.modulus)
    .bind(public.exponent)
    .bind(public.curve)
    .bind(public.point)
    .bind(public.bits)
    .bind(json(&key.key_ops))
    .bind(json(&key.tags))
    .bind(key.enabled)
    .bind(key.not_before)
    .bind(key.expires)
    .bind(key.created)
    .bind(key.updated)
    .bind(key.exportable)
    .bind(policy.map(|policy| policy.data.as_slice()))
    .bind(policy.and_then(|policy| policy.content_type.as_deref()))
    .bind(policy.is_some_and(|policy| policy.immutable))
    .bind(key.sealed.as_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes what may change in a version: `enabled`, the dates, operations, tags, and the policy with the new seal.
///
/// Returns whether the row still was as `key.revision` says and its name is live; otherwise nothing is written.
pub async fn update(connection: &mut SqliteConnection, key: &KeyRecord) -> Result<bool, StoreError> {
    let policy = key.policy.as_ref();
    let result = sqlx::query(
        "UPDATE key_versions SET key_ops = ?, tags = ?, enabled = ?, not_before = ?, expires = ?, updated = ?,
             policy = ?, policy_type = ?, policy_immutable = ?, sealed = ?, revision = revision + 1
         WHERE name = ? AND version = ? AND revision = ?
             AND EXISTS (SELECT 1 FROM keys k WHERE k.name = key_versions.name AND k.deleted IS NULL)",
    )
    .bind(json(&key.key_ops))
    .bind(json(&key.tags))
    .bind(key.enabled)
    .bind(key.not_before)
    .bind(key.expires)
    .bind(key.updated)
    .bind(policy.map(|policy| policy.data.as_slice()))
    .bind(policy.and_then(|policy| policy.content_type.as_deref()))
    .bind(policy.is_some_and(|policy| policy.immutable))
    .bind(key.sealed.as_bytes())
    .bind(&key.name)
    .bind(&key.version)
    .bind(key.revision)
    .execute(connection)
    .await?;
    Ok(result.rows_affected() > 0)
}

/// Marks a name as deleted (`Some`) or live again (`None`).
pub async fn set_deleted(
    connection: &mut SqliteConnection,
    name: &str,
    deleted: Option<(i64, i64)>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE keys SET deleted = ?, purge_at = ? WHERE name = ?")
        .bind(deleted.map(|(at, _)| at))
        .bind(deleted.map(|(_, purge_at)| purge_at))
        .bind(name)
        .execute(connection)
        .await?;
    Ok(())
}

/// Destroys a deleted name with all versions. Its generations are kept apart, in case it comes back from a backup.
/// Returns whether there was one.
pub async fn purge(connection: &mut SqliteConnection, name: &str) -> Result<bool, StoreError> {
    if !matches!(name_state(&mut *connection, name).await?, NameState::Deleted { .. }) {
        return Ok(false);
    }
    super::releases::retire_generations(connection, name).await?;
    let result = sqlx::query("DELETE FROM keys WHERE name = ? AND deleted IS NOT NULL")
        .bind(name)
        .execute(connection)
        .await?;
    Ok(result.rows_affected() > 0)
}

/// Names of deleted keys whose time is over.
pub async fn due_for_purge(connection: &mut SqliteConnection, now: i64) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT name FROM keys WHERE purge_at <= ? ORDER BY name")
        .bind(now)
        .fetch_all(connection)
        .await?)
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("lists and maps of strings are JSON")
}

fn record(row: &SqliteRow) -> Result<KeyRecord, StoreError> {
    let policy = row.try_get::<Option<Vec<u8>>, _>("policy")?.map(|data| {
        Ok::<_, StoreError>(KeyReleasePolicy {
            content_type: row.try_get("policy_type")?,
            data,
            immutable: row.try_get("policy_immutable")?,
        })
    });
    Ok(KeyRecord {
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        key_type: KeyType::from_name(row.try_get("kty")?).ok_or(StoreError::Corrupt("key type"))?,
        public: public(row)?,
        key_ops: from_json(row.try_get("key_ops")?, "list of key operations")?,
        tags: from_json(row.try_get("tags")?, "set of tags")?,
        enabled: row.try_get("enabled")?,
        not_before: row.try_get("not_before")?,
        expires: row.try_get("expires")?,
        created: row.try_get("created")?,
        updated: row.try_get("updated")?,
        revision: row.try_get("revision")?,
        exportable: row.try_get("exportable")?,
        policy: policy.transpose()?,
        sealed: Sealed::from_bytes(row.try_get("sealed")?),
    })
}

/// The columns of a public part; those of other families are null.
#[derive(Default)]
struct PublicColumns<'a> {
    modulus: Option<&'a [u8]>,
    exponent: Option<&'a [u8]>,
    curve: Option<&'static str>,
    point: Option<&'a [u8]>,
    bits: Option<u32>,
}

impl<'a> PublicColumns<'a> {
    fn of(key: &'a PublicKey) -> Self {
        match key {
            PublicKey::Rsa(parts) => {
                Self { modulus: Some(&parts.modulus), exponent: Some(&parts.exponent), ..Self::default() }
            }
            PublicKey::Ec(point) => {
                Self { curve: Some(point.curve.name()), point: Some(point.uncompressed()), ..Self::default() }
            }
            PublicKey::Oct(bits) => Self { bits: Some(bits.number()), ..Self::default() },
        }
    }
}

fn public(row: &SqliteRow) -> Result<PublicKey, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt("public key");
    if let (Some(modulus), Some(exponent)) = (row.try_get("modulus")?, row.try_get("exponent")?) {
        return Ok(PublicKey::Rsa(PublicParts { modulus, exponent }));
    }
    if let (Some(curve), Some(point)) = (row.try_get::<Option<&str>, _>("curve")?, row.try_get("point")?) {
        let curve = Curve::from_name(curve).ok_or(CORRUPT)?;
        return EcPoint::from_uncompressed(curve, point).map(PublicKey::Ec).ok_or(CORRUPT);
    }
    let bits: Option<u32> = row.try_get("bits")?;
    bits.and_then(OctBits::from_number).map(PublicKey::Oct).ok_or(CORRUPT)
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(what))
}
