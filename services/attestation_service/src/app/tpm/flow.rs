//! `POST /attest/Tpm` as a verb of the service. Every verdict is on disk before the caller hears of it.

use aws_lc_rs::digest::{SHA256, digest};
use public_api::Denial;
use public_api::attestation::{CLAIM_NONCE_SOURCE, CLAIM_TRUST_ROOT, Claims};
use public_api::attestation_policy::AttestationType;
use public_api::decision_log::Decision;
use public_api::encoding::{to_base64, to_base64url};
use serde_json::{Value, json};
use vtpm::event_log::EventLog;
use vtpm::measured_boot::secure_boot;
use vtpm::quote::verify_with_any_nonce;

use super::request::{Envelope, Message, TpmRequest, bound_challenge};
use crate::app::ak_authority::{AikCertificate, rsa_public_key};
use crate::app::attest::{AttestError, Course, Service, sha256_hex, token_claims};
use crate::app::azure_guest::claims::{CLAIM_AIK_CERTIFICATE, CLAIM_REPLAYED_PCRS, CLAIM_VTPM_BOUNDARY};
use crate::app::azure_guest::flow::raw_claims;
use crate::app::azure_guest::verify::replayed_log;
use crate::app::azure_guest::{policy_evidence, refusal};
use crate::app::claims::NonceSource;
use crate::app::nonce::{self, Origin, OwnNonce};
use crate::app::provider::Provider;
use crate::app::signing::{CertificateInHeader, TokenForm};
use crate::store::Record;

/// How long a token holds, in seconds: a day, the protocol's default `report_validity_in_minutes`.
const LIFETIME: i64 = 24 * 3600;

/// What a quote for a challenge of ours proved.
struct Verified {
    claims: Claims,
    /// The claims `events` and `pcrs`.
    raw: Claims,
    own: OwnNonce,
}

impl Service {
    /// Challenge or token.
    pub async fn attest_tpm(
        &self,
        provider: &Provider,
        envelope: Envelope,
        now: i64,
    ) -> Result<Value, AttestError> {
        match &envelope.message {
            Message::Init => Ok(envelope.answer(self.challenge(now))),
            Message::Request(request) => {
                let jwt = self.tpm_token(provider, request, now).await?;
                Ok(envelope.answer(json!({"report": jwt})))
            }
        }
    }

    /// The bytes of a nonce, and the nonce itself as the context: the service remembers nothing.
    fn challenge(&self, now: i64) -> Value {
        let nonce = self.nonces.issue(now).nonce;
        let challenge = hex::decode(&nonce).unwrap_or_default();
        json!({"challenge": to_base64url(&challenge), "service_context": to_base64url(nonce.as_bytes())})
    }

    async fn tpm_token(
        &self,
        provider: &Provider,
        request: &TpmRequest,
        now: i64,
    ) -> Result<String, AttestError> {
        let detail = json!({"attestationType": "Tpm", "quoteSha256": sha256_hex(&request.quote)});
        let mut course = Course::begin(provider, detail, now);
        course.subject = format!("TPM key {}", sha256_hex(&rsa_public_key(&request.aik)));
        let decided = match self.verify_tpm(request, now) {
            Ok(Verified { mut claims, raw, own }) => {
                if self.store.use_nonce(&own.text, own.expires_on, now).await? {
                    let raw = || raw.clone();
                    let form = self.apply_policies(AttestationType::Tpm, &mut claims, raw, &mut course);
                    form.map(|form| (claims, form))
                } else {
                    Err(nonce::replayed().into())
                }
            }
            Err(denial) => Err(denial.into()),
        };
        let (mut claims, form) = match decided {
            Ok(decided) => decided,
            Err(AttestError::Denied(denial)) => return Err(self.refuse(denial, course).await),
            Err(error) => return Err(error),
        };
        let form = TokenForm::of(form, LIFETIME, CertificateInHeader::Whole);
        let jti = token_claims(&mut claims, provider.signer.issuer(), now, form.lifetime);
        let token = provider.signer.sign_as(form, &claims, now)?;
        let Course { subject, mut detail, changes, .. } = course;
        detail["tokenId"] = json!(jti);
        detail["policyHash"] = claims.get("x-ms-policy-hash").cloned().unwrap_or_default();
        let record = Record { decision: Decision::Attested, subject, denial: None, detail };
        self.store.record_with(record, changes).await?;
        Ok(token)
    }

    fn verify_tpm(&self, request: &TpmRequest, now: i64) -> Result<Verified, Box<Denial>> {
        let own = self.own_challenge(request, now)?;
        let quote = verify_with_any_nonce(&request.quote, &request.signature, &request.aik, &request.pcrs)
            .map_err(|error| refusal::quote(&error, &request.signature))?;
        if *quote.pcrs() != request.pcrs {
            let numbers = |bank: &vtpm::PcrBank| bank.0.keys().copied().collect::<Vec<u8>>();
            return Err(refusal::pcr_set(&numbers(&request.pcrs), &numbers(quote.pcrs())));
        }
        let confirmed = quote.nonce() == bound_challenge(&request.challenge, &request.request_key);
        if !confirmed && quote.nonce() != request.challenge {
            return Err(refusal::quote_challenge(quote.nonce()));
        }
        let (log, replayed) = replayed_log(&request.log, quote.pcrs())?;
        let claims = self.tpm_claims(request, (&log, &replayed), confirmed, now);
        let raw = raw_claims(&policy_evidence::events(&log, &replayed), &policy_evidence::pcrs(quote.pcrs()));
        Ok(Verified { claims, raw, own })
    }

    /// The challenge is a nonce of ours that has not expired.
    fn own_challenge(&self, request: &TpmRequest, now: i64) -> Result<OwnNonce, Box<Denial>> {
        let text = std::str::from_utf8(&request.service_context).unwrap_or_default();
        match self.nonces.origin(text, now)? {
            Origin::Own(own) if hex::decode(&own.text).is_ok_and(|bytes| bytes == request.challenge) => {
                Ok(own)
            }
            _ => Err(refusal::foreign_challenge(&request.challenge)),
        }
    }

    fn tpm_claims(
        &self,
        request: &TpmRequest,
        (log, replayed): (&EventLog, &[u8]),
        confirmed: bool,
        now: i64,
    ) -> Claims {
        let state = replayed.contains(&7).then(|| secure_boot(log).ok()).flatten();
        let certificate = AikCertificate::of(&request.aik_cert, &request.aik, Some(&self.ak_authority), now);
        let key_hash = digest(&SHA256, &rsa_public_key(&request.aik));
        let mut claims = Claims::new();
        let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        put("x-ms-ver", json!("1.0"));
        put("x-ms-attestation-type", json!("tpm"));
        put("aikValidated", json!(certificate == AikCertificate::Valid));
        put("aikPubHash", json!(to_base64(key_hash.as_ref())));
        put("tpmVersion", json!(2));
        put("secureBootEnabled", json!(state.is_some_and(|state| state.secure_boot)));
        put("vbsReportPresent", json!(false));
        put(CLAIM_VTPM_BOUNDARY, json!("unknown"));
        put(CLAIM_TRUST_ROOT, json!("none"));
        put(CLAIM_AIK_CERTIFICATE, json!(certificate.name()));
        put(CLAIM_NONCE_SOURCE, json!(NonceSource::Server.name()));
        put(CLAIM_REPLAYED_PCRS, json!(replayed));
        if let Some(rp_data) = &request.rp_data {
            put("rp_data", json!(rp_data));
        }
        if confirmed {
            let key = &request.request_key;
            put("cnf", json!({"jwk": {"kty": "RSA", "n": key.jwk_n(), "e": key.jwk_e()}}));
        }
        claims
    }
}
