//! Certificates, revocation lists, minimum patch levels and reference values as rows.

use snp::{CrlScope, RootId};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};

use super::change::Query;
use super::{Store, StoreError};

/// The certificate of a chip.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct StoredVcek {
    /// Product name.
    pub product: String,
    /// Hex.
    pub chip_id: String,
    /// Hex.
    pub tcb: String,
    /// DER.
    pub certificate: Vec<u8>,
    /// Unix seconds.
    pub learnt_on: i64,
}

/// ASK or ASVK with its ARK.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct StoredIssuer {
    /// Product name.
    pub product: String,
    /// `VCEK` or `VLEK`.
    pub issues: String,
    /// SHA-256 of the ASK, hex.
    pub thumbprint: String,
    /// DER.
    pub ask: Vec<u8>,
    /// DER.
    pub ark: Vec<u8>,
    /// Unix seconds.
    pub learnt_on: i64,
}

/// A revocation list.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct StoredList {
    /// SHA-256 of the root, hex.
    pub root: String,
    /// For which leaves: `VCEK` or `VLEK`.
    pub key: String,
    /// DER.
    pub list: Vec<u8>,
    /// URL, or empty.
    pub source: String,
    /// Unix seconds.
    pub learnt_on: i64,
}

impl StoredList {
    /// A list that was verified.
    pub fn of(root: RootId, scope: CrlScope, list: Vec<u8>, source: String, learnt_on: i64) -> Self {
        Self { root: root.to_string(), key: scope.name().to_owned(), list, source, learnt_on }
    }
}

/// One thing that was learnt.
#[derive(Clone, Debug)]
pub enum Learnt {
    /// A certificate of a chip.
    Vcek(StoredVcek),
    /// What issues them.
    Issuer(StoredIssuer),
    /// A revocation list, newer than the stored one.
    List(StoredList),
    /// A table of minimum patch levels.
    MinimumTcb {
        /// Its number.
        sequence: u64,
        /// As it was signed.
        jws: String,
        /// The caller.
        set_by: String,
        /// Unix seconds.
        set_on: i64,
    },
    /// Reference values of another service.
    References {
        /// Its `iss`.
        issuer: String,
        /// As they were signed.
        jws: String,
        /// Unix seconds.
        issued_on: i64,
    },
    /// The boot chain of an image.
    BootReference {
        /// Its name.
        name: String,
        /// JSON of it.
        json: String,
    },
    /// No boot chain of this name any more.
    BootReferenceGone(String),
}

impl Learnt {
    pub(super) fn query(&self) -> Query<'_> {
        match self {
            Self::Vcek(vcek) => sqlx::query(
                "INSERT INTO collateral_vceks (product, chip_id, tcb, certificate, learnt_on)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (product, chip_id, tcb)
                 DO UPDATE SET certificate = excluded.certificate, learnt_on = excluded.learnt_on",
            )
            .bind(&vcek.product)
            .bind(&vcek.chip_id)
            .bind(&vcek.tcb)
            .bind(&vcek.certificate)
            .bind(vcek.learnt_on),
            Self::Issuer(issuer) => sqlx::query(
                "INSERT INTO collateral_issuers (product, issues, thumbprint, ask, ark, learnt_on)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (product, issues, thumbprint)
                 DO UPDATE SET ark = excluded.ark, learnt_on = excluded.learnt_on",
            )
            .bind(&issuer.product)
            .bind(&issuer.issues)
            .bind(&issuer.thumbprint)
            .bind(&issuer.ask)
            .bind(&issuer.ark)
            .bind(issuer.learnt_on),
            Self::List(list) => sqlx::query(
                "INSERT INTO collateral_lists (root, key, list, source, learnt_on) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (root, key) DO UPDATE SET list = excluded.list, learnt_on = excluded.learnt_on,
                 source = CASE excluded.source WHEN '' THEN source ELSE excluded.source END",
            )
            .bind(&list.root)
            .bind(&list.key)
            .bind(&list.list)
            .bind(&list.source)
            .bind(list.learnt_on),
            Self::MinimumTcb { sequence, jws, set_by, set_on } => sqlx::query(
                "INSERT INTO minimum_tcb_tables (sequence, jws, set_by, set_on) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (sequence) DO NOTHING",
            )
            .bind(i64::try_from(*sequence).unwrap_or(i64::MAX))
            .bind(jws)
            .bind(set_by)
            .bind(*set_on),
            Self::References { issuer, jws, issued_on } => sqlx::query(
                "INSERT INTO reference_documents (issuer, jws, issued_on) VALUES ($1, $2, $3)
                 ON CONFLICT (issuer) DO UPDATE SET jws = excluded.jws, issued_on = excluded.issued_on",
            )
            .bind(issuer)
            .bind(jws)
            .bind(*issued_on),
            Self::BootReference { name, json } => sqlx::query(
                "INSERT INTO boot_references (name, reference) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET reference = excluded.reference",
            )
            .bind(name)
            .bind(json),
            Self::BootReferenceGone(name) => {
                sqlx::query("DELETE FROM boot_references WHERE name = $1").bind(name)
            }
        }
    }
}

impl Store {
    /// Writes down what was learnt outside of any verdict.
    pub async fn learn(&self, learnt: &Learnt) -> Result<(), StoreError> {
        let done = learnt.query().execute(&self.pool).await;
        done.map(drop).map_err(StoreError::database("writing down what was learnt"))
    }

    /// The certificate of a chip.
    pub async fn vcek(&self, product: &str, chip_id: &str, tcb: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row: Option<(Vec<u8>,)> = sqlx::query_as(
            "SELECT certificate FROM collateral_vceks WHERE product = $1 AND chip_id = $2 AND tcb = $3",
        )
        .bind(product)
        .bind(chip_id)
        .bind(tcb)
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::database("reading the certificate of a chip"))?;
        Ok(row.map(|(certificate,)| certificate))
    }

    /// All certificates of chips.
    pub async fn vceks(&self) -> Result<Vec<StoredVcek>, StoreError> {
        self.all(
            "SELECT product, chip_id, tcb, certificate, learnt_on FROM collateral_vceks
             ORDER BY product, chip_id, tcb",
        )
        .await
    }

    /// How many certificates of chips there are.
    pub async fn vcek_count(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) FROM collateral_vceks").fetch_one(&self.pool).await;
        let count = row.and_then(|row: SqliteRow| row.try_get::<i64, _>(0));
        let count = count.map_err(StoreError::database("counting the certificates of chips"))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// All issuers.
    pub async fn issuers(&self) -> Result<Vec<StoredIssuer>, StoreError> {
        self.all(
            "SELECT product, issues, thumbprint, ask, ark, learnt_on FROM collateral_issuers
             ORDER BY product, issues, thumbprint",
        )
        .await
    }

    /// The newest revocation list of each root and kind of leaf.
    pub async fn lists(&self) -> Result<Vec<StoredList>, StoreError> {
        self.all("SELECT root, key, list, source, learnt_on FROM collateral_lists ORDER BY root, key").await
    }

    /// The table of minimum patch levels with the highest number, as it was signed.
    pub async fn minimum_tcb_table(&self) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> =
            sqlx::query_as("SELECT jws FROM minimum_tcb_tables ORDER BY sequence DESC LIMIT 1")
                .fetch_optional(&self.pool)
                .await
                .map_err(StoreError::database("reading the table of minimum patch levels"))?;
        Ok(row.map(|(jws,)| jws))
    }

    /// Reference values of other services, as they were signed.
    pub async fn reference_documents(&self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = self.all("SELECT jws FROM reference_documents ORDER BY issuer").await?;
        Ok(rows.into_iter().map(|(jws,)| jws).collect())
    }

    /// The boot chains of images, as JSON.
    pub async fn boot_references(&self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = self.all("SELECT reference FROM boot_references ORDER BY name").await?;
        Ok(rows.into_iter().map(|(reference,)| reference).collect())
    }

    async fn all<T>(&self, query: &'static str) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        let rows = sqlx::query_as(query).fetch_all(&self.pool).await;
        rows.map_err(StoreError::database("reading collateral"))
    }
}
