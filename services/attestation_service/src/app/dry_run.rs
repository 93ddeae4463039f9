//! Trying a policy on the evidence that is stored: what would change if it decided.

use public_api::Denial;
use public_api::attestation::Claims;
use public_api::attestation_policy::{AttestationType, DryRun, DryRunChange};

use super::attest::Service;
use super::azure_guest::policy as guest;
use super::policies::PolicyChangeError;
use super::provider::Provider;
use super::provider::document::{DocumentError, PolicyDocument};
use super::provider::in_force::ProviderPolicy;
use crate::store::{StoreError, StoredEvidence};

/// Rows of one query.
const PAGE: u32 = 200;
/// Most changes that are told; the count of the rest follows from the numbers.
const MAX_CHANGES: usize = 1000;

impl Service {
    /// `POST /policies/{type}:dryRun`. Nothing is changed; a signature, if there is one, must hold.
    pub async fn dry_run(
        &self,
        provider: &Provider,
        kind: AttestationType,
        body: &str,
    ) -> Result<DryRun, PolicyChangeError> {
        let document = PolicyDocument::read(body).map_err(|error| match error {
            DocumentError::Form(error) => PolicyChangeError::Form(error),
            DocumentError::Refused(denial) => PolicyChangeError::Refused(denial),
        })?;
        let text = match document.policy_text()? {
            Some(text) => text,
            None => super::shipped_policy(kind).to_owned(),
        };
        let policy = ProviderPolicy::parse(0, String::new(), &text, None)?;
        let mut result =
            DryRun { policy_hash: policy.hash.clone(), evaluated: 0, permitted: 0, changes: Vec::new() };
        let mut after = String::new();
        loop {
            let page = self.store.evidence_after(provider.name(), kind, &after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(result) };
            after.clone_from(&last.subject);
            for evidence in page {
                self.try_on(provider, kind, &policy, evidence, &mut result)?;
            }
            // Other requests come first: a policy can cost milliseconds for each piece of evidence.
            tokio::task::yield_now().await;
        }
    }

    fn try_on(
        &self,
        provider: &Provider,
        kind: AttestationType,
        policy: &ProviderPolicy,
        evidence: StoredEvidence,
        result: &mut DryRun,
    ) -> Result<(), StoreError> {
        let claims: Claims = serde_json::from_str(&evidence.claims)?;
        let refused_now = self.denial_by(kind, provider.in_force(kind).active.as_deref(), &claims);
        let refused_then = self.denial_by(kind, Some(policy), &claims);
        result.evaluated += 1;
        result.permitted += u64::from(refused_then.is_none());
        let changes = refused_now.is_some() != refused_then.is_some();
        if changes && result.changes.len() < MAX_CHANGES {
            let (subject, seen_on) = (evidence.subject, evidence.seen_on);
            result.changes.push(DryRunChange { subject, seen_on, refused_now, refused_then });
        }
        Ok(())
    }

    /// Why a policy (the shipped one, if none is given) refuses claims.
    fn denial_by(
        &self,
        kind: AttestationType,
        policy: Option<&ProviderPolicy>,
        claims: &Claims,
    ) -> Option<Denial> {
        let outcome = match kind {
            AttestationType::SevSnpVm => {
                let circumstances = self.appraiser.circumstances_of(claims);
                let incoming = super::platform_policy::incoming(claims, circumstances);
                match policy {
                    Some(policy) => policy.apply(incoming, &mut claims.clone()).map(drop),
                    None => self.appraiser.shipped().decide_incoming(incoming).map(drop),
                }
            }
            AttestationType::AzureGuest | AttestationType::Tpm => match policy {
                Some(policy) => {
                    policy.apply_to_quote(kind, guest::incoming(claims), &mut claims.clone()).map(drop)
                }
                None => self.shipped_guest_policy(kind).decide(&mut claims.clone()),
            },
        };
        outcome.err().map(|denial| *denial)
    }
}
