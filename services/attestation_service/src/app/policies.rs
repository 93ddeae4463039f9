//! The verbs on a provider's policies: show, set, reset, stage, promote, withdraw, roll back, history, difference.
//!
//! A change is checked, then written together with its line in the decision log, and only then decides. Changes of one
//! service come one after another.

use std::sync::Arc;

use policy::language::policy_hash;
use public_api::Denial;
use public_api::attestation::{AttestResponse, Claims};
use public_api::attestation_policy::{AttestationType, PolicyDifference, PolicyState, PolicyVersion};
use public_api::decision_log::Decision;
use public_api::encoding::to_base64url;
use serde_json::json;

use super::attest::{Service, token_claims};
use super::fields::FieldError;
use super::provider::Provider;
use super::provider::document::{DocumentError, PolicyDocument, PolicySigner, unsigned_jws};
use super::provider::in_force::{InForce, ProviderPolicy};
use super::signing::SignerError;
use crate::store::{Change, Record, StoreError, StoredInForce, StoredPolicy};

/// How long answers of the policy routes hold, in seconds.
const ANSWER_LIFETIME: i64 = 3600;

/// Why a policy was not changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum PolicyChangeError {
    /// The document cannot be read.
    #[error(transparent)]
    Form(#[from] FieldError),
    /// The document was refused; the decision log says so.
    #[error("{0}")]
    Refused(Box<Denial>),
    /// The text is no policy.
    #[error("the policy cannot be read: {0}")]
    Policy(#[from] policy::language::PolicyError),
    /// There is no such version.
    #[error("there is no version {0} of this policy")]
    NoVersion(u64),
    /// There is nothing staged.
    #[error("no policy is staged")]
    NothingStaged,
    /// The database failed.
    #[error("the change could not be recorded")]
    Store(#[from] StoreError),
    /// Signing failed.
    #[error("the answer could not be signed")]
    Signer(#[from] SignerError),
}

/// Whether a new policy decides at once, or is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduction {
    /// It decides.
    Active,
    /// It is tried beside the one that decides.
    Staged,
}

/// Who asks for a change.
#[derive(Clone, Copy)]
pub struct ChangeRequest<'a> {
    /// Whose policy.
    pub provider: &'a Arc<Provider>,
    /// For which evidence.
    pub kind: AttestationType,
    /// The caller's id.
    pub caller: &'a str,
    /// Unix seconds.
    pub now: i64,
}

impl Service {
    /// `GET /policies/{type}`: a JWS whose claim holds the policy's own JWS.
    pub fn show_policy(
        &self,
        provider: &Provider,
        kind: AttestationType,
        now: i64,
    ) -> Result<AttestResponse, PolicyChangeError> {
        let jws = match provider.in_force(kind).active {
            Some(policy) => policy.jws.clone(),
            None => unsigned_jws(super::shipped_policy(kind)),
        };
        answer(provider, now, [("x-ms-policy", json!(jws))])
    }

    /// `PUT /policies/{type}` and `POST /policies/{type}:stage`.
    pub async fn set_policy(
        &self,
        request: ChangeRequest<'_>,
        body: &str,
        introduction: Introduction,
    ) -> Result<AttestResponse, PolicyChangeError> {
        let _changing = self.changing.lock().await;
        let document = self.checked_document(request, body).await?;
        let text = document.policy_text()?.ok_or_else(|| {
            FieldError::new("policy", "the JWS has no payload; to go back to the shipped policy use `:reset`")
        })?;
        let version = self.next_version(request).await?;
        let signer = document.signer.as_ref().map(PolicySigner::jwk);
        let policy = Arc::new(ProviderPolicy::parse(version, document.jws.clone(), &text, signer)?);
        let mut in_force = request.provider.in_force(request.kind);
        match introduction {
            Introduction::Active => in_force.active = Some(policy),
            Introduction::Staged => in_force.staged = Some(policy),
        }
        let added = Change::AddPolicy(stored(request, version, &document, text));
        let detail = json!({"operation": format!("{introduction:?}"), "version": version});
        self.put_in_force(request, in_force, vec![added], detail).await?;
        modified(request, "Updated", &document)
    }

    /// `POST /policies/{type}:reset`: the shipped policy decides again.
    pub async fn reset_policy(
        &self,
        request: ChangeRequest<'_>,
        body: &str,
    ) -> Result<AttestResponse, PolicyChangeError> {
        let _changing = self.changing.lock().await;
        let document = self.checked_document(request, body).await?;
        let detail = json!({"operation": "Reset", "version": 0});
        self.put_in_force(request, InForce::default(), Vec::new(), detail).await?;
        modified(request, "Removed", &document)
    }

    /// `POST /policies/{type}:promote`: the staged policy decides. It was checked, signature included, when it was staged.
    pub async fn promote_policy(
        &self,
        request: ChangeRequest<'_>,
    ) -> Result<Vec<PolicyVersion>, PolicyChangeError> {
        let _changing = self.changing.lock().await;
        let staged =
            request.provider.in_force(request.kind).staged.ok_or(PolicyChangeError::NothingStaged)?;
        let detail = json!({"operation": "Promoted", "version": staged.version});
        let in_force = InForce { active: Some(staged), staged: None };
        self.put_in_force(request, in_force, Vec::new(), detail).await?;
        self.policy_history(request.provider, request.kind).await
    }

    /// `POST /policies/{type}:withdraw`: the staged policy is not tried any more.
    pub async fn withdraw_policy(
        &self,
        request: ChangeRequest<'_>,
    ) -> Result<Vec<PolicyVersion>, PolicyChangeError> {
        let _changing = self.changing.lock().await;
        let in_force = request.provider.in_force(request.kind);
        let staged = in_force.staged.as_ref().ok_or(PolicyChangeError::NothingStaged)?;
        let detail = json!({"operation": "Withdrawn", "version": staged.version});
        self.put_in_force(request, InForce { staged: None, ..in_force }, Vec::new(), detail).await?;
        self.policy_history(request.provider, request.kind).await
    }

    /// `POST /policies/{type}:rollback?version=N`: an earlier version decides again, if whoever signed it still may.
    pub async fn roll_back_policy(
        &self,
        request: ChangeRequest<'_>,
        version: u64,
    ) -> Result<Vec<PolicyVersion>, PolicyChangeError> {
        let _changing = self.changing.lock().await;
        let versions = self.store.policy_versions(request.provider.name(), request.kind).await?;
        let earlier = versions.into_iter().find(|policy| policy.version == version);
        let earlier = earlier.ok_or(PolicyChangeError::NoVersion(version))?;
        self.checked_document(request, &earlier.jws).await?;
        let in_force =
            InForce { active: Some(Arc::new(parsed(&earlier)?)), ..request.provider.in_force(request.kind) };
        let detail = json!({"operation": "RolledBack", "version": version});
        self.put_in_force(request, in_force, Vec::new(), detail).await?;
        self.policy_history(request.provider, request.kind).await
    }

    /// `GET /policies/{type}/versions`, newest first.
    pub async fn policy_history(
        &self,
        provider: &Provider,
        kind: AttestationType,
    ) -> Result<Vec<PolicyVersion>, PolicyChangeError> {
        let in_force = provider.in_force(kind);
        let versions = self.store.policy_versions(provider.name(), kind).await?;
        Ok(versions.into_iter().rev().map(|policy| view(policy, &in_force)).collect())
    }

    /// `GET /policies/{type}/difference`; version 0 is the shipped policy.
    pub async fn policy_difference(
        &self,
        provider: &Provider,
        kind: AttestationType,
        from: u64,
        to: u64,
    ) -> Result<PolicyDifference, PolicyChangeError> {
        let versions = self.store.policy_versions(provider.name(), kind).await?;
        let text = |version: u64| match version {
            0 => Ok(super::shipped_policy(kind)),
            _ => versions
                .iter()
                .find(|policy| policy.version == version)
                .map(|policy| policy.text.as_str())
                .ok_or(PolicyChangeError::NoVersion(version)),
        };
        let (old, new) = (text(from)?, text(to)?);
        let difference = similar::TextDiff::from_lines(old, new);
        let difference = difference
            .unified_diff()
            .context_radius(3)
            .header(&format!("version {from}"), &format!("version {to}"))
            .to_string();
        Ok(PolicyDifference { from, to, difference })
    }

    /// Reads a document and checks that the provider takes it from its signer; a refusal is logged.
    pub(super) async fn checked_document(
        &self,
        request: ChangeRequest<'_>,
        body: &str,
    ) -> Result<PolicyDocument, PolicyChangeError> {
        let provider = request.provider;
        let checked = PolicyDocument::read(body).and_then(|document| {
            let signers = provider.policy_signers();
            match document.check_signer(provider.trust_model(), &signers) {
                Ok(()) => Ok(document),
                Err(denial) => Err(DocumentError::Refused(denial)),
            }
        });
        match checked {
            Ok(document) => Ok(document),
            Err(DocumentError::Form(error)) => Err(error.into()),
            Err(DocumentError::Refused(denial)) => Err(self.refuse_change(request, denial).await),
        }
    }

    pub(super) async fn refuse_change(
        &self,
        request: ChangeRequest<'_>,
        denial: Box<Denial>,
    ) -> PolicyChangeError {
        let record = Record {
            decision: Decision::Refused,
            subject: subject(request),
            denial: Some((*denial).clone()),
            detail: json!({"caller": request.caller}),
        };
        match self.store.record(record).await {
            Ok(_) => PolicyChangeError::Refused(denial),
            Err(error) => error.into(),
        }
    }

    async fn next_version(&self, request: ChangeRequest<'_>) -> Result<u64, StoreError> {
        let versions = self.store.policy_versions(request.provider.name(), request.kind).await?;
        Ok(versions.last().map_or(1, |policy| policy.version + 1))
    }

    async fn put_in_force(
        &self,
        request: ChangeRequest<'_>,
        in_force: InForce,
        mut changes: Vec<Change>,
        mut detail: serde_json::Value,
    ) -> Result<(), StoreError> {
        let version = |policy: &Option<Arc<ProviderPolicy>>| policy.as_ref().map(|policy| policy.version);
        changes.push(Change::PutInForce {
            provider: request.provider.name().to_owned(),
            kind: request.kind,
            active: version(&in_force.active),
            staged: version(&in_force.staged),
        });
        detail["caller"] = json!(request.caller);
        let hash = in_force.active.as_ref().map(|policy| policy.hash.clone());
        detail["policyHash"] =
            json!(hash.unwrap_or_else(|| policy_hash(super::shipped_policy(request.kind))));
        let record =
            Record { decision: Decision::PolicyChanged, subject: subject(request), denial: None, detail };
        self.store.record_with(record, changes).await?;
        request.provider.put_in_force(request.kind, in_force);
        Ok(())
    }
}

/// What decides for a provider, from what is stored.
pub async fn load_in_force(
    store: &crate::store::Store,
    provider: &str,
    kind: AttestationType,
) -> Result<InForce, PolicyChangeError> {
    let StoredInForce { active, staged } = store.in_force(provider, kind).await?;
    if active.is_none() && staged.is_none() {
        return Ok(InForce::default());
    }
    let versions = store.policy_versions(provider, kind).await?;
    let load = |version: Option<u64>| match version {
        None => Ok(None),
        Some(version) => {
            let stored = versions.iter().find(|policy| policy.version == version);
            let stored = stored.ok_or(PolicyChangeError::NoVersion(version))?;
            parsed(stored).map(Arc::new).map(Some).map_err(PolicyChangeError::from)
        }
    };
    Ok(InForce { active: load(active)?, staged: load(staged)? })
}

fn parsed(stored: &StoredPolicy) -> Result<ProviderPolicy, policy::language::PolicyError> {
    let signer = stored.signer.clone().and_then(PolicySigner::from_der).map(|signer| signer.jwk());
    ProviderPolicy::parse(stored.version, stored.jws.clone(), &stored.text, signer)
}

fn stored(request: ChangeRequest<'_>, version: u64, document: &PolicyDocument, text: String) -> StoredPolicy {
    StoredPolicy {
        provider: request.provider.name().to_owned(),
        kind: request.kind,
        version,
        jws: document.jws.clone(),
        text,
        signer: document.signer.as_ref().map(|signer| signer.certificate.clone()),
        set_by: request.caller.to_owned(),
        set_on: request.now,
    }
}

fn view(policy: StoredPolicy, in_force: &InForce) -> PolicyVersion {
    let is = |other: &Option<Arc<ProviderPolicy>>| {
        other.as_ref().is_some_and(|other| other.version == policy.version)
    };
    let state = match (is(&in_force.active), is(&in_force.staged)) {
        (true, _) => PolicyState::Active,
        (_, true) => PolicyState::Staged,
        _ => PolicyState::Former,
    };
    let signer = policy.signer.and_then(PolicySigner::from_der).map(|signer| signer.thumbprint());
    PolicyVersion {
        version: policy.version,
        state,
        policy_hash: policy_hash(&policy.text),
        signer,
        set_by: policy.set_by,
        set_on: policy.set_on,
        text: policy.text,
    }
}

fn subject(request: ChangeRequest<'_>) -> String {
    format!("providers/{}/policies/{}", request.provider.name(), request.kind.name())
}

fn modified(
    request: ChangeRequest<'_>,
    result: &str,
    document: &PolicyDocument,
) -> Result<AttestResponse, PolicyChangeError> {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, document.jws.as_bytes());
    let mut claims = vec![
        ("x-ms-policy-result", json!(result)),
        ("x-ms-policy-token-hash", json!(to_base64url(hash.as_ref()))),
    ];
    if let Some(signer) = &document.signer {
        claims.push(("x-ms-policy-signer", signer.jwk()));
    }
    answer(request.provider, request.now, claims)
}

/// A signed answer: the given claims, issuer and times.
pub(super) fn answer(
    provider: &Provider,
    now: i64,
    given: impl IntoIterator<Item = (&'static str, serde_json::Value)>,
) -> Result<AttestResponse, PolicyChangeError> {
    let mut claims: Claims = given.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    token_claims(&mut claims, provider.signer.issuer(), now, ANSWER_LIFETIME);
    claims.remove("jti");
    Ok(AttestResponse { token: provider.signer.sign(&claims, now, now + ANSWER_LIFETIME)? })
}
