//! The verbs: attest, issue a nonce. Every verdict is on disk before the caller hears of it.

use std::path::PathBuf;
use std::sync::Arc;

use http_service::Gate;
use http_service::health::LastReadiness;
use http_service::peer::Peer;
use public_api::Denial;
use public_api::attestation::{AttestResponse, Claims, NonceResponse};
use public_api::attestation_policy::AttestationType;
use public_api::decision_log::Decision;
use public_api::encoding::to_hex;
use serde_json::{Value, json};

use super::access::Access;
use super::ak_authority::{AkAuthority, AkAuthorityError};
use super::appraise::{Appraisal, Appraiser, VerifiedEvidence};
use super::azure_guest::policy::GuestPolicy;
use super::azure_guest::seal::SealError;
use super::claims::NonceSource;
use super::collateral::Collateral;
use super::collateral::missing::Missing;
use super::counts::Counts;
use super::draft::{self, DraftError};
use super::nonce::{self, Nonces, Origin};
use super::provider::Provider;
use super::provider::registry::Registry;
use super::request::Request;
use super::sample::Sampler;
use super::signing::{CertificateInHeader, SignerError, TokenForm};
use crate::store::{Change, Record, Store, StoreError};

/// How long a token holds, in seconds: eight hours, as Azure's.
pub const TOKEN_LIFETIME: i64 = 8 * 3600;

/// Everything that a request needs.
pub struct Service {
    /// What evidence is judged by.
    pub appraiser: Appraiser,
    /// Certificates and revocation lists.
    pub collateral: Arc<Collateral>,
    /// The providers with their policies and keys.
    pub providers: Registry,
    /// Issues nonces.
    pub nonces: Nonces,
    /// Certifies attestation keys of vTPMs.
    pub ak_authority: AkAuthority,
    /// The policy of guest attestation.
    pub guest_policy: GuestPolicy,
    /// The policy of attestation by a quote alone.
    pub tpm_policy: GuestPolicy,
    /// Used nonces, policies and the decision log.
    pub store: Store,
    /// Who may read and change.
    pub access: Access,
    /// Which evidence is kept.
    pub sampler: Sampler,
    /// Where the providers' keys lie.
    pub data_dir: PathBuf,
    /// Held by whoever changes a policy, a signer or a provider.
    pub changing: tokio::sync::Mutex<()>,
    /// What every request passes, with the metrics of all.
    pub gate: Arc<Gate>,
    /// What is counted of attesting.
    pub counts: Counts,
    /// The last answer of `/health/ready`.
    pub last_readiness: LastReadiness,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The evidence, or the nonce, was refused; the decision log says so.
    #[error("{0}")]
    Denied(Box<Denial>),
    /// What the evidence lacks is not known and cannot be had now; the decision log says so.
    #[error("{denial}")]
    Unavailable {
        /// Why.
        denial: Box<Denial>,
        /// Seconds to wait.
        retry_after: u64,
    },
    /// The draft policy is not a policy.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// The database failed.
    #[error("the verdict could not be recorded")]
    Store(#[from] StoreError),
    /// Signing failed.
    #[error("the token could not be made")]
    Signer(#[from] SignerError),
    /// Sealing failed.
    #[error("the token could not be sealed")]
    Seal(#[from] SealError),
    /// Certifying failed.
    #[error("the certificate could not be made")]
    AkAuthority(#[from] AkAuthorityError),
}

impl From<Denial> for AttestError {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}

impl From<Box<Denial>> for AttestError {
    fn from(denial: Box<Denial>) -> Self {
        Self::Denied(denial)
    }
}

/// What is known of a request on its way, for the log.
pub(super) struct Course<'a> {
    pub provider: &'a Provider,
    pub subject: String,
    pub detail: Value,
    pub changes: Vec<Change>,
    pub now: i64,
}

impl<'a> Course<'a> {
    /// A course that has only begun.
    pub fn begin(provider: &'a Provider, mut detail: Value, now: i64) -> Self {
        detail["provider"] = json!(provider.name());
        Self { provider, subject: "unverified evidence".to_owned(), detail, changes: Vec::new(), now }
    }
}

impl Service {
    /// Evidence in, token out. If it is of a chip that nobody has seen, its certificate is fetched at the expense of the
    /// address that it comes from.
    pub async fn attest(
        &self,
        provider: &Provider,
        request: Request,
        from: Peer,
        now: i64,
    ) -> Result<AttestResponse, AttestError> {
        let detail = json!({"reportSha256": sha256_hex(&request.evidence.report)});
        let mut course = Course::begin(provider, detail, now);
        let mut evidence = request.evidence;
        if let Err(missing) = self.collateral.complete(&mut evidence, from, now).await {
            return Err(self.refuse_missing(&missing, course).await);
        }
        // Some hundred microseconds: not worth another thread.
        let verified = match self.appraiser.verify(evidence, now) {
            Ok(verified) => verified,
            Err(denial) => return Err(self.refuse(denial, course).await),
        };
        course.subject = verified.subject();
        if let Some(draft) = request.draft_policy {
            return self.try_draft(provider, &verified, &draft, request.nonce.as_ref(), now);
        }
        course.changes.extend(self.collateral.keep(&verified, now));
        let source = match self.redeem_nonce(&verified, request.nonce.as_ref(), now).await {
            Ok(source) => source,
            Err(AttestError::Denied(denial)) => return Err(self.refuse(denial, course).await),
            Err(error) => return Err(error),
        };
        let kind = AttestationType::SevSnpVm;
        let claims = self.appraiser.claims(&verified, source);
        if self.sampler.is_due(provider.name(), kind, &course.subject, now) {
            course.changes.push(Sampler::keep(provider.name(), kind, &course.subject, &claims, now)?);
        }
        let verdict = self.appraiser.judge(&verified, claims, &provider.in_force(kind));
        if let Some((version, denial)) = verdict.staged {
            course.detail["stagedPolicy"] = json!({"version": version, "wouldRefuse": denial});
        }
        match verdict.outcome {
            Ok(appraisal) => self.accept(&verified, appraisal, request.nonce, course).await,
            Err(denial) => Err(self.refuse(denial, course).await),
        }
    }

    /// A nonce of ours must be bound by the report and is then used up, whatever the policy says afterwards.
    async fn redeem_nonce(
        &self,
        verified: &VerifiedEvidence,
        nonce: Option<&Value>,
        now: i64,
    ) -> Result<NonceSource, AttestError> {
        let text = match nonce {
            None => return Ok(NonceSource::None),
            Some(Value::String(text)) => text,
            Some(_) => return Ok(NonceSource::Client),
        };
        let own = match self.nonces.origin(text, now)? {
            Origin::Client => return Ok(NonceSource::Client),
            Origin::Own(own) => own,
        };
        let bound = verified.bound_nonce();
        if !bound.is_some_and(|bound| bound.eq_ignore_ascii_case(&own.text)) {
            return Err(nonce::unbound(&own, bound).into());
        }
        if !self.store.use_nonce(&own.text, own.expires_on, now).await? {
            return Err(nonce::replayed().into());
        }
        reach("after using up a nonce");
        Ok(NonceSource::Server)
    }

    async fn accept(
        &self,
        verified: &VerifiedEvidence,
        appraisal: Appraisal,
        nonce: Option<Value>,
        mut course: Course<'_>,
    ) -> Result<AttestResponse, AttestError> {
        let signer = &course.provider.signer;
        let (mut claims, form) = appraisal.into_parts();
        let form = TokenForm::of(form, TOKEN_LIFETIME, CertificateInHeader::None);
        let jti = token_claims(&mut claims, signer.issuer(), course.now, form.lifetime);
        if let Some(nonce) = nonce {
            claims.insert("nonce".to_owned(), nonce);
        }
        let token = signer.sign_as(form, &claims, course.now)?;
        let detail = &mut course.detail;
        detail["tokenId"] = json!(jti);
        detail["trustRoot"] = json!(verified.report().root().kind());
        detail["measurement"] = json!(to_hex(verified.report().report().measurement));
        detail["policyHash"] = claims.get("x-ms-policy-hash").cloned().unwrap_or_default();
        reach("before recording a verdict");
        let Course { subject, detail, changes, .. } = course;
        let record = Record { decision: Decision::Attested, subject, denial: None, detail };
        self.store.record_with(record, changes).await?;
        reach("after recording a verdict");
        Ok(AttestResponse { token })
    }

    /// Records a refusal. If that fails the caller hears of the failure: no verdict leaves without its record.
    pub(super) async fn refuse(&self, denial: Box<Denial>, course: Course<'_>) -> AttestError {
        let Course { subject, detail, changes, .. } = course;
        let record = Record { decision: Decision::Refused, subject, denial: Some((*denial).clone()), detail };
        match self.store.record_with(record, changes).await {
            Ok(_) => denial.into(),
            Err(error) => error.into(),
        }
    }

    async fn refuse_missing(&self, missing: &Missing, course: Course<'_>) -> AttestError {
        let retry_after = missing.retry_after(course.now);
        match (self.refuse(missing.denial(), course).await, retry_after) {
            (AttestError::Denied(denial), Some(retry_after)) => {
                AttestError::Unavailable { denial, retry_after }
            }
            (error, _) => error,
        }
    }

    /// The result of a draft policy: unsigned, so that nobody can take it for a token.
    fn try_draft(
        &self,
        provider: &Provider,
        verified: &VerifiedEvidence,
        draft: &str,
        nonce: Option<&Value>,
        now: i64,
    ) -> Result<AttestResponse, AttestError> {
        let source = if nonce.is_some() { NonceSource::Client } else { NonceSource::None };
        let mut claims = self.appraiser.claims(verified, source);
        draft::apply(draft, &mut claims, self.appraiser.circumstances(verified))?;
        token_claims(&mut claims, provider.signer.issuer(), now, TOKEN_LIFETIME);
        if let Some(nonce) = nonce {
            claims.insert("nonce".to_owned(), nonce.clone());
        }
        Ok(AttestResponse { token: draft::unsigned(&claims) })
    }

    /// A nonce that is accepted once.
    pub fn issue_nonce(&self, now: i64) -> NonceResponse {
        self.nonces.issue(now)
    }
}

/// Adds issuer, times and a token id, which is returned.
pub(super) fn token_claims(claims: &mut Claims, issuer: &str, now: i64, lifetime: i64) -> String {
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).expect("the system's random generator works after start-up");
    let jti = to_hex(random);
    claims.insert("iss".to_owned(), json!(issuer));
    claims.insert("iat".to_owned(), json!(now));
    claims.insert("nbf".to_owned(), json!(now));
    claims.insert("exp".to_owned(), json!(now + lifetime));
    claims.insert("jti".to_owned(), json!(jti));
    jti
}

/// A point of this process in its fault plan.
fn reach(point: &str) {
    fault_plan::reach("attestation", point);
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}
