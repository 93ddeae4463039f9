//! Keys and their versions.

use std::collections::BTreeMap;

use public_api::keys::KeyReleasePolicy;
use sqlx::FromRow;

use super::backend::{Dialect, change, folded, on, sought, text};
use super::{Connection, Reader, StoreError};
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

/// The columns of [`Row`], but for the name.
const COLUMNS: &str = "v.version, v.kty, v.modulus, v.exponent, v.curve, v.point, v.bits, v.key_ops, v.tags, v.enabled, \
     v.not_before, v.expires, v.created, v.updated, v.revision, v.exportable, v.policy, v.policy_type, v.policy_immutable, v.sealed";

/// `SELECT` of whole versions, up to its `WHERE`.
fn select(dialect: Dialect) -> String {
    let (name, row) = (dialect.spelling(), dialect.row());
    format!(
        "SELECT {name} AS name, {row} AS row_number, {COLUMNS} FROM key_versions v JOIN keys k ON k.name = v.name"
    )
}

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
pub async fn name_state<'c>(reader: impl Into<Reader<'c>>, name: &str) -> Result<NameState, StoreError> {
    const SQL: &str = "SELECT deleted, purge_at FROM keys WHERE name = $1";
    let row: Option<(Option<i64>, Option<i64>)> = on!(reader, |executor| {
        Ok(sqlx::query_as(SQL).bind(sought(name)).fetch_optional(executor).await?)
    })?;
    Ok(match row {
        None => NameState::Free,
        Some((Some(deleted), Some(purge_at))) => NameState::Deleted { deleted, purge_at },
        Some(_) => NameState::Live,
    })
}

/// A version of a key; the newest one if `version` is `None`.
pub async fn find<'c>(
    reader: impl Into<Reader<'c>>,
    among: Among,
    name: &str,
    version: Option<&str>,
) -> Result<Option<KeyRecord>, StoreError> {
    let reader = reader.into();
    let sql = format!(
        "{} WHERE k.name = $1 AND ($2 IS NULL OR v.version = $2) AND {} ORDER BY v.number DESC LIMIT 1",
        select(reader.dialect()),
        among.condition()
    );
    on!(reader, |executor| {
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(sought(name)).bind(version.map(text));
        let row = query.fetch_optional(executor).await?;
        row.as_ref().map(|row| Row::from_row(row)?.record()).transpose()
    })
}

/// Whether this is the newest version of a live name.
pub async fn is_newest<'c>(reader: impl Into<Reader<'c>>, key: &KeyRecord) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT v.version FROM key_versions v JOIN keys k ON k.name = v.name
         WHERE k.name = $1 AND k.deleted IS NULL ORDER BY v.number DESC LIMIT 1";
    let newest: Option<String> = on!(reader, |executor| {
        Ok(sqlx::query_scalar(SQL).bind(folded(&key.name)).fetch_optional(executor).await?)
    })?;
    Ok(newest.as_ref() == Some(&key.version))
}

/// Whether one version of a name was made after another.
pub async fn is_later<'c>(
    reader: impl Into<Reader<'c>>,
    than: &KeyRecord,
    key: &KeyRecord,
) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM key_versions a
         JOIN key_versions b ON b.name = a.name AND b.number > a.number
         WHERE a.name = $1 AND a.version = $2 AND b.version = $3)";
    on!(reader, |executor| {
        let later = sqlx::query_scalar(SQL).bind(folded(&than.name)).bind(&than.version).bind(&key.version);
        Ok(later.fetch_one(executor).await?)
    })
}

/// The newest version of up to `limit` keys whose names follow `after`, by name.
pub async fn newest<'c>(
    reader: impl Into<Reader<'c>>,
    among: Among,
    after: &str,
    limit: u32,
) -> Result<Vec<KeyRecord>, StoreError> {
    let reader = reader.into();
    let sql = format!(
        "{} WHERE k.name > $1 AND {}
             AND v.number = (SELECT MAX(number) FROM key_versions w WHERE w.name = v.name)
         ORDER BY k.name LIMIT $2",
        select(reader.dialect()),
        among.condition()
    );
    on!(reader, |executor| {
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(sought(after)).bind(i64::from(limit));
        let rows = query.fetch_all(executor).await?;
        rows.iter().map(|row| Row::from_row(row)?.record()).collect()
    })
}

/// The version that was stored last, deleted or not.
pub async fn last_written<'c>(reader: impl Into<Reader<'c>>) -> Result<Option<KeyRecord>, StoreError> {
    let reader = reader.into();
    let sql = format!("{} ORDER BY {} DESC LIMIT 1", select(reader.dialect()), reader.dialect().row());
    on!(reader, |executor| {
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_optional(executor).await?;
        row.as_ref().map(|row| Row::from_row(row)?.record()).transpose()
    })
}

/// Up to `limit` versions behind a row number, deleted or not, each with its own.
pub async fn after_row<'c>(
    reader: impl Into<Reader<'c>>,
    row: i64,
    limit: u32,
) -> Result<Vec<(i64, KeyRecord)>, StoreError> {
    let reader = reader.into();
    let number = reader.dialect().row();
    let sql = format!("{} WHERE {number} > $1 ORDER BY {number} LIMIT $2", select(reader.dialect()));
    on!(reader, |executor| {
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(row).bind(i64::from(limit));
        let rows = query.fetch_all(executor).await?;
        let read = rows.iter().map(|row| {
            let row = Row::from_row(row)?;
            Ok((row.row_number, row.record()?))
        });
        read.collect()
    })
}

/// Every version of a live key, oldest first.
pub async fn versions<'c>(reader: impl Into<Reader<'c>>, name: &str) -> Result<Vec<KeyRecord>, StoreError> {
    let reader = reader.into();
    let sql =
        format!("{} WHERE k.name = $1 AND k.deleted IS NULL ORDER BY v.number", select(reader.dialect()));
    on!(reader, |executor| {
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(sought(name)).fetch_all(executor).await?;
        rows.iter().map(|row| Row::from_row(row)?.record()).collect()
    })
}

/// Adds a name, if it is new.
pub(super) async fn insert_name(
    connection: &mut Connection,
    name: &str,
    created: i64,
) -> Result<(), StoreError> {
    match connection.dialect() {
        Dialect::Sqlite => {
            let sql = "INSERT INTO keys (name, created) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
            change!(connection, sql, name, created)?;
        }
        Dialect::Postgres => {
            let sql = "INSERT INTO keys (name, spelling, created) VALUES ($1, $2, $3) \
                       ON CONFLICT (name) DO NOTHING";
            change!(connection, sql, folded(name), name, created)?;
        }
    }
    Ok(())
}

/// Every version of a deleted name.
pub async fn deleted_versions<'c>(
    reader: impl Into<Reader<'c>>,
    name: &str,
) -> Result<Vec<KeyRecord>, StoreError> {
    let reader = reader.into();
    let sql =
        format!("{} WHERE k.name = $1 AND k.deleted IS NOT NULL ORDER BY v.number", select(reader.dialect()));
    on!(reader, |executor| {
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(sought(name)).fetch_all(executor).await?;
        rows.iter().map(|row| Row::from_row(row)?.record()).collect()
    })
}

/// Adds a version (and the name, if it is new).
pub async fn insert(connection: &mut Connection, key: &KeyRecord) -> Result<(), StoreError> {
    const SQL: &str =
        "INSERT INTO key_versions (name, version, number, kty, modulus, exponent, curve, point, bits, key_ops, tags,
             enabled, not_before, expires, created, updated, exportable, policy, policy_type, policy_immutable, sealed)
         VALUES ($1, $2, (SELECT COALESCE(MAX(number), 0) + 1 FROM key_versions WHERE name = $1), $3, $4, $5, $6, $7,
             $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)";
    insert_name(connection, &key.name, key.created).await?;
    let policy = key.policy.as_ref();
    let public = PublicColumns::of(&key.public);
    change!(
        connection,
        SQL,
        folded(&key.name),
        &key.version,
        key.key_type.name(),
        public.modulus,
        public.exponent,
        public.curve,
        public.point,
        public.bits,
        json(&key.key_ops),
        json(&key.tags),
        key.enabled,
        key.not_before,
        key.expires,
        key.created,
        key.updated,
        key.exportable,
        policy.map(|policy| policy.data.as_slice()),
        policy.and_then(|policy| policy.content_type.as_deref()),
        policy.is_some_and(|policy| policy.immutable),
        key.sealed.as_bytes(),
    )?;
    Ok(())
}

/// Writes what may change in a version: `enabled`, the dates, operations, tags, and the policy with the new seal.
///
/// Returns whether the row still was as `key.revision` says and its name is live; otherwise nothing is written.
pub async fn update(connection: &mut Connection, key: &KeyRecord) -> Result<bool, StoreError> {
    const SQL: &str =
        "UPDATE key_versions SET key_ops = $1, tags = $2, enabled = $3, not_before = $4, expires = $5, updated = $6,
             policy = $7, policy_type = $8, policy_immutable = $9, sealed = $10, revision = revision + 1
         WHERE name = $11 AND version = $12 AND revision = $13
             AND EXISTS (SELECT 1 FROM keys k WHERE k.name = key_versions.name AND k.deleted IS NULL)";
    let policy = key.policy.as_ref();
    let changed = change!(
        connection,
        SQL,
        json(&key.key_ops),
        json(&key.tags),
        key.enabled,
        key.not_before,
        key.expires,
        key.updated,
        policy.map(|policy| policy.data.as_slice()),
        policy.and_then(|policy| policy.content_type.as_deref()),
        policy.is_some_and(|policy| policy.immutable),
        key.sealed.as_bytes(),
        folded(&key.name),
        &key.version,
        key.revision,
    )?;
    Ok(changed > 0)
}

/// Marks a name as deleted (`Some`) or live again (`None`).
pub async fn set_deleted(
    connection: &mut Connection,
    name: &str,
    deleted: Option<(i64, i64)>,
) -> Result<(), StoreError> {
    let (at, purge_at) = deleted.unzip();
    change!(
        connection,
        "UPDATE keys SET deleted = $1, purge_at = $2 WHERE name = $3",
        at,
        purge_at,
        folded(name)
    )?;
    Ok(())
}

/// Destroys a deleted name with all versions. Its generations are kept apart, in case it comes back from a backup.
/// Returns whether there was one.
pub async fn purge(connection: &mut Connection, name: &str) -> Result<bool, StoreError> {
    if !matches!(name_state(&mut *connection, name).await?, NameState::Deleted { .. }) {
        return Ok(false);
    }
    super::releases::retire_generations(connection, name).await?;
    const SQL: &str = "DELETE FROM keys WHERE name = $1 AND deleted IS NOT NULL";
    Ok(change!(connection, SQL, folded(name))? > 0)
}

/// Names of deleted keys whose time is over.
pub async fn due_for_purge<'c>(reader: impl Into<Reader<'c>>, now: i64) -> Result<Vec<String>, StoreError> {
    let reader = reader.into();
    let name = reader.dialect().spelling();
    let sql = format!("SELECT {name} FROM keys k WHERE k.purge_at <= $1 ORDER BY k.name");
    on!(reader, |executor| {
        Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(now).fetch_all(executor).await?)
    })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("lists and maps of strings are JSON")
}

/// A version as it is read. What is parsed is borrowed from the driver's buffer.
#[derive(FromRow)]
struct Row<'r> {
    name: String,
    row_number: i64,
    version: String,
    kty: &'r str,
    modulus: Option<Vec<u8>>,
    exponent: Option<Vec<u8>>,
    curve: Option<&'r str>,
    point: Option<Vec<u8>>,
    bits: Option<i64>,
    key_ops: &'r str,
    tags: &'r str,
    enabled: bool,
    not_before: Option<i64>,
    expires: Option<i64>,
    created: i64,
    updated: i64,
    revision: i64,
    exportable: bool,
    policy: Option<Vec<u8>>,
    policy_type: Option<String>,
    policy_immutable: bool,
    sealed: Vec<u8>,
}

impl Row<'_> {
    fn record(self) -> Result<KeyRecord, StoreError> {
        let public = public(self.modulus.zip(self.exponent), self.curve.zip(self.point), self.bits)?;
        let policy = self.policy.map(|data| KeyReleasePolicy {
            content_type: self.policy_type,
            data,
            immutable: self.policy_immutable,
        });
        Ok(KeyRecord {
            name: self.name,
            version: self.version,
            key_type: KeyType::from_name(self.kty).ok_or(StoreError::Corrupt("key type"))?,
            public,
            key_ops: from_json(self.key_ops, "list of key operations")?,
            tags: from_json(self.tags, "set of tags")?,
            enabled: self.enabled,
            not_before: self.not_before,
            expires: self.expires,
            created: self.created,
            updated: self.updated,
            revision: self.revision,
            exportable: self.exportable,
            policy,
            sealed: Sealed::from_bytes(self.sealed),
        })
    }
}

/// The columns of a public part; those of other families are null.
#[derive(Default)]
struct PublicColumns<'a> {
    modulus: Option<&'a [u8]>,
    exponent: Option<&'a [u8]>,
    curve: Option<&'static str>,
    point: Option<&'a [u8]>,
    bits: Option<i64>,
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
            PublicKey::Oct(bits) => Self { bits: Some(i64::from(bits.number())), ..Self::default() },
        }
    }
}

fn public(
    rsa: Option<(Vec<u8>, Vec<u8>)>,
    ec: Option<(&str, Vec<u8>)>,
    bits: Option<i64>,
) -> Result<PublicKey, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt("public key");
    if let Some((modulus, exponent)) = rsa {
        return Ok(PublicKey::Rsa(PublicParts { modulus, exponent }));
    }
    if let Some((curve, point)) = ec {
        let curve = Curve::from_name(curve).ok_or(CORRUPT)?;
        return EcPoint::from_uncompressed(curve, point).map(PublicKey::Ec).ok_or(CORRUPT);
    }
    let bits = bits.and_then(|bits| u32::try_from(bits).ok());
    bits.and_then(OctBits::from_number).map(PublicKey::Oct).ok_or(CORRUPT)
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(what))
}
