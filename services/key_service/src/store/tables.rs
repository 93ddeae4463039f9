//! Every row of every table, for a move from one database to another: read in pages, in one order on both databases, and
//! written as it was read.

use sqlx::FromRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use super::backend::{Connection, Dialect, change, folded, on};
use super::{Reader, StoreError};

/// Rows of one page.
const PAGE: i64 = 500;

/// A row that can be read from either database.
pub trait FromBoth: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}
impl<T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin> FromBoth for T {}

/// What stands before the next page.
#[derive(Clone, Debug)]
pub enum Cursor {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
    /// Two texts.
    Texts(String, String),
}

/// A row of a table.
pub trait Row: FromBoth + PartialEq + 'static {
    /// What a person calls the table.
    const NAME: &'static str;
    /// Before the first page.
    const FIRST: Cursor;
    /// `SELECT ... FROM ...`.
    fn select(dialect: Dialect) -> String;
    /// The columns of the cursor.
    fn order(dialect: Dialect) -> &'static str;
    /// Where this row stands.
    fn cursor(&self) -> Cursor;
    /// Writes the row.
    fn insert(&self, to: &mut Connection) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The rows of one page behind `after`.
pub async fn page<R: Row>(connection: &mut Connection, after: &Cursor) -> Result<Vec<R>, StoreError> {
    let dialect = connection.dialect();
    let (select, order) = (R::select(dialect), R::order(dialect));
    let sql = match after {
        Cursor::Number(_) | Cursor::Text(_) => {
            format!("{select} WHERE {order} > $1 ORDER BY {order} LIMIT {PAGE}")
        }
        Cursor::Texts(..) => format!("{select} WHERE ({order}) > ($1, $2) ORDER BY {order} LIMIT {PAGE}"),
    };
    let sql = sqlx::AssertSqlSafe(sql);
    match after {
        Cursor::Number(number) => {
            on!(connection, |executor| Ok(sqlx::query_as(sql).bind(number).fetch_all(executor).await?))
        }
        Cursor::Text(text) => {
            on!(connection, |executor| Ok(sqlx::query_as(sql).bind(text).fetch_all(executor).await?))
        }
        Cursor::Texts(first, second) => on!(connection, |executor| {
            Ok(sqlx::query_as(sql).bind(first).bind(second).fetch_all(executor).await?)
        }),
    }
}

/// Removes every row of every table.
pub async fn clear(connection: &mut Connection) -> Result<(), StoreError> {
    let tables = [
        "rotation_policies",
        "generations",
        "retired_generations",
        "key_versions",
        "keys",
        "used_tokens",
        "decisions",
        "meta",
    ];
    for table in tables {
        change!(connection, sqlx::AssertSqlSafe(format!("DELETE FROM {table}")))?;
    }
    Ok(())
}

/// Whether no service has ever used the database.
pub async fn are_empty<'c>(reader: impl Into<Reader<'c>>) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT NOT (EXISTS (SELECT 1 FROM keys) OR EXISTS (SELECT 1 FROM decisions)
         OR EXISTS (SELECT 1 FROM used_tokens) OR EXISTS (SELECT 1 FROM retired_generations)
         OR EXISTS (SELECT 1 FROM meta))";
    on!(reader, |executor| Ok(sqlx::query_scalar(SQL).fetch_one(executor).await?))
}

/// A single value.
#[derive(Debug, PartialEq, FromRow)]
pub struct Meta {
    /// What it is.
    pub name: String,
    /// The value.
    pub value: Vec<u8>,
}

impl Row for Meta {
    const NAME: &'static str = "meta";
    const FIRST: Cursor = Cursor::Text(String::new());

    fn select(_: Dialect) -> String {
        "SELECT name, value FROM meta".to_owned()
    }

    fn order(_: Dialect) -> &'static str {
        "name"
    }

    fn cursor(&self) -> Cursor {
        Cursor::Text(self.name.clone())
    }

    async fn insert(&self, to: &mut Connection) -> Result<(), StoreError> {
        super::meta::write(to, &self.name, &self.value).await
    }
}

/// A name of a key, as it was spelled at its creation.
#[derive(Debug, PartialEq, FromRow)]
pub struct Name {
    /// The name.
    pub name: String,
    /// Unix seconds, as all times here.
    pub created: i64,
    /// When it was deleted.
    pub deleted: Option<i64>,
    /// When it will be purged.
    pub purge_at: Option<i64>,
}

impl Row for Name {
    const NAME: &'static str = "keys";
    const FIRST: Cursor = Cursor::Text(String::new());

    fn select(dialect: Dialect) -> String {
        format!("SELECT {} AS name, k.created, k.deleted, k.purge_at FROM keys k", dialect.spelling())
    }

    fn order(_: Dialect) -> &'static str {
        "k.name"
    }

    fn cursor(&self) -> Cursor {
        Cursor::Text(folded(&self.name))
    }

    async fn insert(&self, to: &mut Connection) -> Result<(), StoreError> {
        super::keys::insert_name(to, &self.name, self.created).await?;
        let deleted = self.deleted.zip(self.purge_at);
        super::keys::set_deleted(to, &self.name, deleted).await
    }
}

/// A version of a key. Everything but `sealed` is public.
#[derive(PartialEq, FromRow)]
#[allow(missing_docs, reason = "the columns of the table, whose migration explains them")]
pub struct Version {
    pub row_number: i64,
    pub name: String,
    pub version: String,
    pub number: i64,
    pub kty: String,
    pub modulus: Option<Vec<u8>>,
    pub exponent: Option<Vec<u8>>,
    pub curve: Option<String>,
    pub point: Option<Vec<u8>>,
    pub bits: Option<i64>,
    pub key_ops: String,
    pub tags: String,
    pub enabled: bool,
    pub not_before: Option<i64>,
    pub expires: Option<i64>,
    pub created: i64,
    pub updated: i64,
    pub revision: i64,
    pub exportable: bool,
    pub policy: Option<Vec<u8>>,
    pub policy_type: Option<String>,
    pub policy_immutable: bool,
    pub sealed: Vec<u8>,
}

impl Row for Version {
    const NAME: &'static str = "key_versions";
    const FIRST: Cursor = Cursor::Number(i64::MIN);

    fn select(dialect: Dialect) -> String {
        format!(
            "SELECT {} AS row_number, lower(v.name) AS name, v.version, v.number, v.kty, v.modulus, v.exponent, v.curve,
                 v.point, v.bits, v.key_ops, v.tags, v.enabled, v.not_before, v.expires, v.created, v.updated,
                 v.revision, v.exportable, v.policy, v.policy_type, v.policy_immutable, v.sealed
             FROM key_versions v",
            dialect.row()
        )
    }

    fn order(dialect: Dialect) -> &'static str {
        dialect.row()
    }

    fn cursor(&self) -> Cursor {
        Cursor::Number(self.row_number)
    }

    async fn insert(&self, to: &mut Connection) -> Result<(), StoreError> {
        const SQL: &str =
            "INSERT INTO key_versions (name, version, number, kty, modulus, exponent, curve, point, bits, key_ops, tags,
                 enabled, not_before, expires, created, updated, revision, exportable, policy, policy_type,
                 policy_immutable, sealed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)";
        change!(
            to,
            SQL,
            &self.name,
            &self.version,
            self.number,
            &self.kty,
            &self.modulus,
            &self.exponent,
            &self.curve,
            &self.point,
            self.bits,
            &self.key_ops,
            &self.tags,
            self.enabled,
            self.not_before,
            self.expires,
            self.created,
            self.updated,
            self.revision,
            self.exportable,
            &self.policy,
            &self.policy_type,
            self.policy_immutable,
            &self.sealed,
        )?;
        Ok(())
    }
}

/// A token that is used up.
#[derive(Debug, PartialEq, FromRow)]
pub struct UsedToken {
    /// Who issued it.
    pub issuer: String,
    /// Its id.
    pub token: String,
    /// When it cannot be presented any more.
    pub forget: i64,
}

impl Row for UsedToken {
    const NAME: &'static str = "used_tokens";
    const FIRST: Cursor = Cursor::Texts(String::new(), String::new());

    fn select(_: Dialect) -> String {
        "SELECT issuer, token, forget FROM used_tokens".to_owned()
    }

    fn order(_: Dialect) -> &'static str {
        "issuer, token"
    }

    fn cursor(&self) -> Cursor {
        Cursor::Texts(self.issuer.clone(), self.token.clone())
    }

    async fn insert(&self, to: &mut Connection) -> Result<(), StoreError> {
        super::releases::use_up(to, &self.issuer, &self.token, self.forget).await
    }
}

/// The generation that was released last, by key and VM.
#[derive(Debug, PartialEq, FromRow)]
pub struct Generation {
    /// The key's name, folded.
    pub name: String,
    /// The VM.
    pub vm_id: String,
    /// The number.
    pub generation: i64,
    /// When it was released.
    pub updated: i64,
    /// What the state shares with others of its names.
    pub lineage: Option<String>,
}

impl Row for Generation {
    const NAME: &'static str = "generations";
    const FIRST: Cursor = Cursor::Texts(String::new(), String::new());

    fn select(_: Dialect) -> String {
        "SELECT lower(g.name) AS name, g.vm_id, g.generation, g.updated, g.lineage FROM generations g"
            .to_owned()
    }

    fn order(_: Dialect) -> &'static str {
        "g.name, g.vm_id"
    }

    fn cursor(&self) -> Cursor {
        Cursor::Texts(self.name.clone(), self.vm_id.clone())
    }

    async fn insert(&self, to: &mut Connection) -> Result<(), StoreError> {
        const SQL: &str =
            "INSERT INTO generations (name, vm_id, generation, updated, lineage) VALUES ($1, $2, $3, $4, $5)";
        change!(to, SQL, &self.name, &self.vm_id, self.generation, self.updated, &self.lineage)?;
        Ok(())
    }
}

/// The same of a version that was purged.
#[derive(Debug, PartialEq, FromRow)]
pub struct RetiredGeneration {
    /// The version.
    pub version: String,
    /// The VM.
    pub vm_id: String,
    /// The number.
    pub generation: i64,
}

impl Row for RetiredGeneration {
    const NAME: &'static str = "retired_generations";
    const FIRST: Cursor = Cursor::Texts(String::new(), String::new());

    fn select(_: Dialect) -> String {
        "SELECT version, vm_id, generation FROM retired_generations".to_owned()
    }

    fn order(_: Dialect) -> &'static str {
        "version, vm_id"
    }

    fn cursor(&self) -> Cursor {
        Cursor::Texts(self.version.clone(), self.vm_id.clone())
    }

    async fn insert(&self, to: &mut Connection) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO retired_generations (version, vm_id, generation) VALUES ($1, $2, $3)";
        change!(to, SQL, &self.version, &self.vm_id, self.generation)?;
        Ok(())
    }
}

/// When a name gets a new version by itself.
#[derive(Debug, PartialEq, FromRow)]
pub struct RotationPolicy {
    /// The key's name, folded.
    pub name: String,
    /// JSON.
    pub policy: String,
    /// When it was first set.
    pub created: i64,
    /// When it was last set.
    pub updated: i64,
    /// The version whose coming end is on record.
    pub notified: Option<String>,
}

impl Row for RotationPolicy {
    const NAME: &'static str = "rotation_policies";
    const FIRST: Cursor = Cursor::Text(String::new());

    fn select(_: Dialect) -> String {
        "SELECT lower(r.name) AS name, r.policy, r.created, r.updated, r.notified FROM rotation_policies r"
            .to_owned()
    }

    fn order(_: Dialect) -> &'static str {
        "r.name"
    }

    fn cursor(&self) -> Cursor {
        Cursor::Text(self.name.clone())
    }

    async fn insert(&self, to: &mut Connection) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO rotation_policies (name, policy, created, updated, notified) \
                           VALUES ($1, $2, $3, $4, $5)";
        change!(to, SQL, &self.name, &self.policy, self.created, self.updated, &self.notified)?;
        Ok(())
    }
}

/// An entry of the decision log, byte for byte.
#[derive(Debug, PartialEq, FromRow)]
pub struct LogEntry {
    /// Its number.
    pub sequence: i64,
    /// JSON.
    pub entry: String,
}

impl Row for LogEntry {
    const NAME: &'static str = "decisions";
    const FIRST: Cursor = Cursor::Number(i64::MIN);

    fn select(_: Dialect) -> String {
        "SELECT sequence, entry FROM decisions".to_owned()
    }

    fn order(_: Dialect) -> &'static str {
        "sequence"
    }

    fn cursor(&self) -> Cursor {
        Cursor::Number(self.sequence)
    }

    async fn insert(&self, to: &mut Connection) -> Result<(), StoreError> {
        change!(to, "INSERT INTO decisions (sequence, entry) VALUES ($1, $2)", self.sequence, &self.entry)?;
        Ok(())
    }
}
