//! `POST /attest/AzureGuest` as a verb of the service. Every verdict is on disk before the caller hears of it.

use std::sync::Arc;

use public_api::Denial;
use public_api::attestation::{AttestResponse, Claims};
use public_api::decision_log::Decision;
use serde_json::{Value, json};

use super::request::GuestRequest;
use super::verify::{VerifiedGuest, verify};
use super::{claims, seal};
use crate::app::attest::{AttestError, Service, TOKEN_LIFETIME, sha256_hex, token_claims};
use crate::app::claims::NonceSource;
use crate::app::nonce::{self, Origin};
use crate::store::Record;

impl Service {
    /// Guest evidence in, sealed token out.
    pub async fn attest_guest(
        self: &Arc<Self>,
        request: GuestRequest,
        now: i64,
    ) -> Result<AttestResponse, AttestError> {
        let detail = json!({"attestationType": "AzureGuest", "quoteSha256": sha256_hex(&request.tpm.quote)});
        let service = Arc::clone(self);
        let verifying = move || verify(&service.appraiser, Some(&service.ak_authority), request, now);
        let verified = tokio::task::spawn_blocking(verifying).await.expect("verification does not panic");
        let guest = match verified {
            Ok(guest) => guest,
            Err(denial) => return Err(self.refuse(denial, "unverified evidence".to_owned(), detail).await),
        };
        let decided = match self.redeem_payload_nonce(&guest, now).await {
            Ok(source) => self.decide_guest(&guest, source).map_err(AttestError::Denied),
            Err(error) => Err(error),
        };
        match decided {
            Ok(claims) => self.accept_guest(&guest, claims, detail, now).await,
            Err(AttestError::Denied(denial)) => Err(self.refuse(denial, guest.subject(), detail).await),
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

    /// The claims of a token: the report by the policy of `SevSnpVm`, the whole by that of guests.
    pub fn decide_guest(&self, guest: &VerifiedGuest, nonce: NonceSource) -> Result<Claims, Box<Denial>> {
        let platform = guest.platform().map(|platform| self.appraiser.decide(platform, nonce)).transpose()?;
        let platform = platform.as_ref().map(|appraisal| appraisal.claims());
        let measurement = guest.platform().map(|platform| platform.report().report().measurement);
        let expected = measurement.and_then(|digest| self.appraiser.references().secure_boot(&digest));
        let mut claims = claims::of_guest(guest, platform, expected, nonce);
        self.guest_policy.decide(&mut claims)?;
        Ok(claims)
    }

    async fn accept_guest(
        &self,
        guest: &VerifiedGuest,
        mut claims: Claims,
        mut detail: Value,
        now: i64,
    ) -> Result<AttestResponse, AttestError> {
        let jti = token_claims(&mut claims, self.signer.issuer(), now, TOKEN_LIFETIME);
        let jwt = self.signer.sign(&claims)?;
        let token = seal::seal(&jwt, guest.encryption_key())?;
        detail["tokenId"] = json!(jti);
        detail["vtpmBoundary"] = json!(guest.boundary().name());
        detail["policyHash"] = json!(self.guest_policy.hash());
        if let Some(platform) = guest.platform() {
            let report = platform.report();
            detail["trustRoot"] = json!(report.root().kind());
            detail["measurement"] = json!(hex::encode(report.report().measurement));
        }
        let subject = guest.subject();
        self.store.record(Record { decision: Decision::Attested, subject, denial: None, detail }).await?;
        Ok(AttestResponse { token })
    }
}
