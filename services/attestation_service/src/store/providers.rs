//! Reading what is stored of providers: policies and their history, policy signers, evidence to try policies on.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::change::{StoredEvidence, StoredPolicy};
use super::{Store, StoreError};
use public_api::attestation_policy::AttestationType;

/// A provider's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProvider {
    /// Its name.
    pub name: String,
    /// JSON of `ProviderSettings`.
    pub settings: String,
    /// Unix seconds.
    pub created_on: i64,
}

/// Versions that decide and are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredInForce {
    /// The version that decides.
    pub active: Option<u64>,
    /// The version that is tried.
    pub staged: Option<u64>,
}

impl Store {
    /// All providers but the one at the root.
    pub async fn providers(&self) -> Result<Vec<StoredProvider>, StoreError> {
        let rows = sqlx::query("SELECT name, settings, created_on FROM providers ORDER BY name")
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::database("reading the providers"))?;
        let provider = |row: &SqliteRow| {
            Ok(StoredProvider {
                name: row.try_get(0)?,
                settings: row.try_get(1)?,
                created_on: row.try_get(2)?,
            })
        };
        rows.iter()
            .map(provider)
            .collect::<Result<_, _>>()
            .map_err(StoreError::database("reading a provider"))
    }

    /// Which versions decide and are tried.
    pub async fn in_force(&self, provider: &str, kind: AttestationType) -> Result<StoredInForce, StoreError> {
        let row: Option<(Option<i64>, Option<i64>)> = sqlx::query_as(
            "SELECT active, staged FROM policies_in_force WHERE provider = $1 AND attestation_type = $2",
        )
        .bind(provider)
        .bind(kind.name())
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::database("reading which policies are in force"))?;
        let (active, staged) = row.unwrap_or_default();
        let version = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        Ok(StoredInForce { active: version(active), staged: version(staged) })
    }

    /// Every version of a policy, oldest first.
    pub async fn policy_versions(
        &self,
        provider: &str,
        kind: AttestationType,
    ) -> Result<Vec<StoredPolicy>, StoreError> {
        let rows = sqlx::query(
            "SELECT version, jws, text, signer, set_by, set_on FROM policy_versions
             WHERE provider = $1 AND attestation_type = $2 ORDER BY version",
        )
        .bind(provider)
        .bind(kind.name())
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::database("reading the versions of a policy"))?;
        let policy = |row: &SqliteRow| {
            Ok(StoredPolicy {
                provider: provider.to_owned(),
                kind,
                version: u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default(),
                jws: row.try_get(1)?,
                text: row.try_get(2)?,
                signer: row.try_get(3)?,
                set_by: row.try_get(4)?,
                set_on: row.try_get(5)?,
            })
        };
        rows.iter().map(policy).collect::<Result<_, _>>().map_err(StoreError::database("reading a policy"))
    }

    /// DER of the certificates that sign a provider's policies.
    pub async fn policy_signers(&self, provider: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows: Vec<(Vec<u8>,)> =
            sqlx::query_as("SELECT certificate FROM policy_signers WHERE provider = $1 ORDER BY thumbprint")
                .bind(provider)
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::database("reading policy signers"))?;
        Ok(rows.into_iter().map(|(certificate,)| certificate).collect())
    }

    /// Up to `limit` pieces of stored evidence after a subject, by subject.
    pub async fn evidence_after(
        &self,
        provider: &str,
        kind: AttestationType,
        after: &str,
        limit: u32,
    ) -> Result<Vec<StoredEvidence>, StoreError> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT subject, claims, seen_on FROM evidence
             WHERE provider = $1 AND attestation_type = $2 AND subject > $3 ORDER BY subject LIMIT $4",
        )
        .bind(provider)
        .bind(kind.name())
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::database("reading stored evidence"))?;
        let evidence = |(subject, claims, seen_on)| StoredEvidence {
            provider: provider.to_owned(),
            kind,
            subject,
            claims,
            seen_on,
        };
        Ok(rows.into_iter().map(evidence).collect())
    }
}
