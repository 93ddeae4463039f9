//! `POST /attest/AzureGuest` as a verb of the service. Every verdict is on disk before the caller hears of it.

use policy::language::TokenProperties;
use public_api::attestation::{AttestResponse, Claims};
use public_api::attestation_policy::AttestationType;
use public_api::decision_log::Decision;
use public_api::encoding::to_hex;
use serde_json::{Value, json};

use super::policy::{self as guest_policy, GuestPolicy};
use super::policy_evidence::{self, CLAIM_EVENTS, CLAIM_PCRS};
use super::request::GuestRequest;
use super::verify::{VerifiedGuest, verify};
use super::{claims, seal};
use crate::app::attest::{AttestError, Course, Service, TOKEN_LIFETIME, sha256_hex, token_claims};
use crate::app::claims::NonceSource;
use crate::app::nonce::{self, Origin};
use crate::app::provider::Provider;
use crate::app::sample::Sampler;
use crate::app::signing::{CertificateInHeader, TokenForm};
use crate::store::Record;

impl Service {
    /// Guest evidence in, sealed token out.
    pub async fn attest_guest(
        &self,
        provider: &Provider,
        request: GuestRequest,
        now: i64,
    ) -> Result<AttestResponse, AttestError> {
        let detail = json!({"attestationType": "AzureGuest", "quoteSha256": sha256_hex(&request.tpm.quote)});
        let mut course = Course::begin(provider, detail, now);
        // Less than a millisecond: not worth another thread.
        let guest = match verify(&self.appraiser, Some(&self.ak_authority), request, now) {
            Ok(guest) => guest,
            Err(denial) => return Err(self.refuse(denial, course).await),
        };
        course.subject = guest.subject();
        let decided = match self.redeem_payload_nonce(&guest, now).await {
            Ok(source) => self.decide_guest(&guest, source, &mut course),
            Err(error) => Err(error),
        };
        match decided {
            Ok((claims, form)) => self.accept_guest(&guest, claims, form, course).await,
            Err(AttestError::Denied(denial)) => Err(self.refuse(denial, course).await),
            Err(error) => Err(error),
        }
    }

    /// A nonce of ours in the client's payload is used up, whatever the policy says afterwards.
    async fn redeem_payload_nonce(
        &self,
        guest: &VerifiedGuest,
        now: i64,
    ) -> Result<NonceSource, AttestError> {
        let Some(text) = guest.payload().nonce.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(NonceSource::None);
        };
        let own = match self.nonces.origin(text, now)? {
            Origin::Client => return Ok(NonceSource::Client),
            Origin::Own(own) => own,
        };
        if !self.store.use_nonce(&own.text, own.expires_on, now).await? {
            return Err(nonce::replayed().into());
        }
        Ok(NonceSource::Server)
    }

    /// The claims and the form of a token: the report by the shipped policy of `SevSnpVm`, the whole by that of guests.
    fn decide_guest(
        &self,
        guest: &VerifiedGuest,
        nonce: NonceSource,
        course: &mut Course<'_>,
    ) -> Result<(Claims, TokenProperties), AttestError> {
        let platform = guest.platform().map(|platform| self.appraiser.decide(platform, nonce)).transpose()?;
        let platform = platform.as_ref().map(|appraisal| appraisal.claims());
        let measurement = guest.platform().map(|platform| platform.report().report().measurement);
        let expected = measurement.and_then(|digest| self.appraiser.references().secure_boot(&digest));
        let mut claims = claims::of_guest(guest, platform, expected, nonce);
        let raw = || {
            let events = policy_evidence::events(guest.log(), guest.replayed());
            raw_claims(&events, &policy_evidence::pcrs(guest.pcrs()))
        };
        let decided = self.apply_policies(AttestationType::AzureGuest, &mut claims, raw, course);
        decided.map(|form| (claims, form)).map_err(|error| self.with_boot_chain(error, guest))
    }

    fn with_boot_chain(&self, mut error: AttestError, guest: &VerifiedGuest) -> AttestError {
        if let (AttestError::Denied(denial), Some(platform)) = (&mut error, guest.platform()) {
            let stated = platform.stated_boot_chain();
            self.appraiser.boot_references().explain(denial, stated.as_ref(), platform.at());
        }
        error
    }

    /// What a provider has set decides, else the shipped policy; what a staged policy would refuse goes into the log.
    pub(in crate::app) fn apply_policies(
        &self,
        kind: AttestationType,
        claims: &mut Claims,
        raw: impl Fn() -> Claims,
        course: &mut Course<'_>,
    ) -> Result<TokenProperties, AttestError> {
        let seen = |claims: &Claims| -> Claims { claims.clone().into_iter().chain(raw()).collect() };
        let name = course.provider.name();
        if self.sampler.is_due(name, kind, &course.subject, course.now) {
            let kept = Sampler::keep(name, kind, &course.subject, &seen(claims), course.now)?;
            course.changes.push(kept);
        }
        let in_force = course.provider.in_force(kind);
        if let Some(policy) = &in_force.staged {
            let tried =
                policy.apply_to_quote(kind, guest_policy::incoming(&seen(claims)), &mut claims.clone());
            if let Err(denial) = tried {
                course.detail["stagedPolicy"] = json!({"version": policy.version, "wouldRefuse": denial});
            }
        }
        match &in_force.active {
            Some(policy) => Ok(policy.apply_to_quote(kind, guest_policy::incoming(&seen(claims)), claims)?),
            None => {
                Ok(self.shipped_guest_policy(kind).decide(claims).map(|()| TokenProperties::default())?)
            }
        }
    }

    /// What decides about a guest, or about a quote alone, where a provider has set nothing.
    pub(in crate::app) fn shipped_guest_policy(&self, kind: AttestationType) -> &GuestPolicy {
        if kind == AttestationType::Tpm { &self.tpm_policy } else { &self.guest_policy }
    }

    async fn accept_guest(
        &self,
        guest: &VerifiedGuest,
        mut claims: Claims,
        form: TokenProperties,
        mut course: Course<'_>,
    ) -> Result<AttestResponse, AttestError> {
        let signer = &course.provider.signer;
        let form = TokenForm::of(form, TOKEN_LIFETIME, CertificateInHeader::None);
        let jti = token_claims(&mut claims, signer.issuer(), course.now, form.lifetime);
        let jwt = signer.sign_as(form, &claims, course.now)?;
        let token = seal::seal(&jwt, guest.encryption_key())?;
        let detail = &mut course.detail;
        detail["tokenId"] = json!(jti);
        detail["vtpmBoundary"] = json!(guest.boundary().name());
        detail["policyHash"] = claims.get("x-ms-policy-hash").cloned().unwrap_or_default();
        if let Some(platform) = guest.platform() {
            let report = platform.report();
            detail["trustRoot"] = json!(report.root().kind());
            detail["measurement"] = json!(to_hex(report.report().measurement));
        }
        let Course { subject, detail, changes, .. } = course;
        let record = Record { decision: Decision::Attested, subject, denial: None, detail };
        self.store.record_with(record, changes).await?;
        Ok(AttestResponse { token })
    }
}

/// The raw evidence as claims for policies: JSON in texts. No token shows them.
pub(in crate::app) fn raw_claims(events: &Value, pcrs: &Value) -> Claims {
    let text = |name: &str, value: &Value| (name.to_owned(), Value::String(value.to_string()));
    [text(CLAIM_EVENTS, events), text(CLAIM_PCRS, pcrs)].into_iter().collect()
}
