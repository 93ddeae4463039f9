//! Changes that become durable together with their line in the decision log, or not at all.

use sqlx::{Sqlite, Transaction};

use super::StoreError;
use super::collateral::Learnt;
use public_api::attestation_policy::AttestationType;

/// What is written in the transaction of a record.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new version of a policy.
    AddPolicy(StoredPolicy),
    /// Which versions decide.
    PutInForce {
        /// The provider.
        provider: String,
        /// The type.
        kind: AttestationType,
        /// The version that decides; none for the shipped policy.
        active: Option<u64>,
        /// The version that is tried.
        staged: Option<u64>,
    },
    /// A certificate that signs policies.
    AddSigner {
        /// The provider.
        provider: String,
        /// SHA-256, hex.
        thumbprint: String,
        /// DER.
        certificate: Vec<u8>,
    },
    /// It does not sign any more.
    RemoveSigner {
        /// The provider.
        provider: String,
        /// SHA-256, hex.
        thumbprint: String,
    },
    /// A new provider.
    AddProvider {
        /// The provider.
        provider: String,
        /// JSON of `ProviderSettings`.
        settings: String,
        /// Unix seconds.
        created_on: i64,
    },
    /// A provider with all that is its own.
    RemoveProvider(String),
    /// The newest evidence of a VM.
    PutEvidence(StoredEvidence),
    /// Collateral that came with evidence or from a caller.
    Learn(Learnt),
}

/// A version of a policy as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// The provider.
    pub provider: String,
    /// The type.
    pub kind: AttestationType,
    /// Counted from 1.
    pub version: u64,
    /// As it was sent.
    pub jws: String,
    /// The text.
    pub text: String,
    /// DER of the certificate that signed it.
    pub signer: Option<Vec<u8>>,
    /// The caller.
    pub set_by: String,
    /// Unix seconds.
    pub set_on: i64,
}

/// Verified evidence as the claims that policies see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvidence {
    /// The provider.
    pub provider: String,
    /// The type.
    pub kind: AttestationType,
    /// The VM.
    pub subject: String,
    /// JSON of the claims.
    pub claims: String,
    /// Unix seconds.
    pub seen_on: i64,
}

pub(super) type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

impl Change {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_, Sqlite>) -> Result<(), StoreError> {
        for query in self.queries() {
            query.execute(&mut **transaction).await.map_err(StoreError::database("writing a change"))?;
        }
        Ok(())
    }

    fn queries(&self) -> Vec<Query<'_>> {
        match self {
            Self::AddPolicy(policy) => vec![add_policy(policy)],
            Self::PutInForce { provider, kind, active, staged } => {
                vec![put_in_force(provider, *kind, *active, *staged)]
            }
            Self::AddSigner { provider, thumbprint, certificate } => vec![
                sqlx::query("INSERT INTO policy_signers (provider, thumbprint, certificate) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
                    .bind(provider).bind(thumbprint).bind(certificate),
            ],
            Self::RemoveSigner { provider, thumbprint } => vec![
                sqlx::query("DELETE FROM policy_signers WHERE provider = $1 AND thumbprint = $2")
                    .bind(provider).bind(thumbprint),
            ],
            Self::AddProvider { provider, settings, created_on } => vec![
                sqlx::query("INSERT INTO providers (name, settings, created_on) VALUES ($1, $2, $3)")
                    .bind(provider).bind(settings).bind(created_on),
            ],
            Self::RemoveProvider(provider) => remove_provider(provider),
            Self::PutEvidence(evidence) => vec![put_evidence(evidence)],
            Self::Learn(learnt) => vec![learnt.query()],
        }
    }
}

fn number(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

fn add_policy(policy: &StoredPolicy) -> Query<'_> {
    sqlx::query(
        "INSERT INTO policy_versions (provider, attestation_type, version, jws, text, signer, set_by, set_on)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&policy.provider)
    .bind(policy.kind.name())
    .bind(number(policy.version))
    .bind(&policy.jws)
    .bind(&policy.text)
    .bind(&policy.signer)
    .bind(&policy.set_by)
    .bind(policy.set_on)
}

fn put_in_force(
    provider: &str,
    kind: AttestationType,
    active: Option<u64>,
    staged: Option<u64>,
) -> Query<'_> {
    sqlx::query(
        "INSERT INTO policies_in_force (provider, attestation_type, active, staged) VALUES ($1, $2, $3, $4)
         ON CONFLICT (provider, attestation_type) DO UPDATE SET active = excluded.active, staged = excluded.staged",
    )
    .bind(provider)
    .bind(kind.name())
    .bind(active.map(number))
    .bind(staged.map(number))
}

fn remove_provider(provider: &str) -> Vec<Query<'_>> {
    const STATEMENTS: [&str; 5] = [
        "DELETE FROM evidence WHERE provider = $1",
        "DELETE FROM policy_signers WHERE provider = $1",
        "DELETE FROM policies_in_force WHERE provider = $1",
        "DELETE FROM policy_versions WHERE provider = $1",
        "DELETE FROM providers WHERE name = $1",
    ];
    STATEMENTS.into_iter().map(|statement| sqlx::query(statement).bind(provider)).collect()
}

fn put_evidence(evidence: &StoredEvidence) -> Query<'_> {
    sqlx::query(
        "INSERT INTO evidence (provider, attestation_type, subject, claims, seen_on) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (provider, attestation_type, subject)
         DO UPDATE SET claims = excluded.claims, seen_on = excluded.seen_on",
    )
    .bind(&evidence.provider)
    .bind(evidence.kind.name())
    .bind(&evidence.subject)
    .bind(&evidence.claims)
    .bind(evidence.seen_on)
}
