//! The certificates that sign a provider's policies: show, add, remove. A change is signed by one of them.

use public_api::Denial;
use public_api::attestation::AttestResponse;
use public_api::attestation_policy::TrustModel;
use public_api::decision_log::Decision;
use serde_json::json;

use super::attest::Service;
use super::policies::{ChangeRequest, PolicyChangeError, answer};
use super::provider::Provider;
use super::provider::document::PolicySigner;
use crate::store::{Change, Record};

/// Most certificates of one provider.
const MAX_SIGNERS: usize = 32;

impl Service {
    /// `GET /certificates`.
    pub fn show_policy_signers(
        &self,
        provider: &Provider,
        now: i64,
    ) -> Result<AttestResponse, PolicyChangeError> {
        let keys: Vec<_> = provider.policy_signers().iter().map(PolicySigner::jwk).collect();
        answer(provider, now, [("x-ms-policy-certificates", json!({"keys": keys}))])
    }

    /// `POST /certificates:add`.
    pub async fn add_policy_signer(
        &self,
        request: ChangeRequest<'_>,
        body: &str,
    ) -> Result<AttestResponse, PolicyChangeError> {
        let _changing = self.changing.lock().await;
        let signer = self.checked_certificate(request, body).await?;
        let mut signers = request.provider.policy_signers().to_vec();
        if !signers.contains(&signer) {
            if signers.len() >= MAX_SIGNERS {
                return Err(self.refuse_change(request, too_many()).await);
            }
            signers.push(signer.clone());
            let change = Change::AddSigner {
                provider: request.provider.name().to_owned(),
                thumbprint: signer.thumbprint(),
                certificate: signer.certificate.clone(),
            };
            self.change_signers(request, signers, change, "SignerAdded", &signer).await?;
        }
        changed(request, &signer, "IsPresent")
    }

    /// `POST /certificates:remove`. The last one stays: without it nobody could ever change a policy again.
    pub async fn remove_policy_signer(
        &self,
        request: ChangeRequest<'_>,
        body: &str,
    ) -> Result<AttestResponse, PolicyChangeError> {
        let _changing = self.changing.lock().await;
        let signer = self.checked_certificate(request, body).await?;
        let mut signers = request.provider.policy_signers().to_vec();
        if signers.contains(&signer) {
            if signers.len() == 1 {
                return Err(self.refuse_change(request, the_last_one(&signer)).await);
            }
            signers.retain(|other| *other != signer);
            let change = Change::RemoveSigner {
                provider: request.provider.name().to_owned(),
                thumbprint: signer.thumbprint(),
            };
            self.change_signers(request, signers, change, "SignerRemoved", &signer).await?;
        }
        changed(request, &signer, "IsAbsent")
    }

    async fn checked_certificate(
        &self,
        request: ChangeRequest<'_>,
        body: &str,
    ) -> Result<PolicySigner, PolicyChangeError> {
        if request.provider.trust_model() == TrustModel::Aad {
            return Err(self.refuse_change(request, not_isolated()).await);
        }
        Ok(self.checked_document(request, body).await?.certificate()?)
    }

    async fn change_signers(
        &self,
        request: ChangeRequest<'_>,
        signers: Vec<PolicySigner>,
        change: Change,
        operation: &str,
        signer: &PolicySigner,
    ) -> Result<(), PolicyChangeError> {
        let record = Record {
            decision: Decision::PolicyChanged,
            subject: format!("providers/{}/certificates", request.provider.name()),
            denial: None,
            detail: json!({
                "operation": operation, "thumbprint": signer.thumbprint(), "caller": request.caller,
            }),
        };
        self.store.record_with(record, vec![change]).await?;
        request.provider.set_policy_signers(signers);
        Ok(())
    }
}

/// The thumbprint of Azure's answers is the SHA-1 of the certificate, upper-case hex.
fn changed(
    request: ChangeRequest<'_>,
    signer: &PolicySigner,
    result: &str,
) -> Result<AttestResponse, PolicyChangeError> {
    let sha1 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &signer.certificate);
    let claims = [
        ("x-ms-certificate-thumbprint", json!(hex::encode_upper(sha1))),
        ("x-ms-policycertificates-result", json!(result)),
        ("x-ms-certificate-result", json!(result)),
    ];
    answer(request.provider, request.now, claims)
}

fn not_isolated() -> Box<Denial> {
    Box::new(Denial::new(
        "ProviderNotIsolated",
        "trustModel",
        "Isolated",
        "AAD",
        "only providers of the trust model Isolated have policy signing certificates",
        "make a provider with policy signing certificates; the trust model of a provider cannot be changed",
    ))
}

fn the_last_one(signer: &PolicySigner) -> Box<Denial> {
    Box::new(Denial::new(
        "PolicySignerIsTheLast",
        "policyCertificate",
        "one of several policy signing certificates",
        format!("the only one, {}", signer.thumbprint()),
        "the last policy signing certificate cannot be removed: no policy could be changed any more",
        "add another certificate first",
    ))
}

fn too_many() -> Box<Denial> {
    Box::new(Denial::new(
        "PolicySignersTooMany",
        "policyCertificate",
        format!("at most {MAX_SIGNERS} policy signing certificates"),
        format!("{}", MAX_SIGNERS + 1),
        "the number of a provider's policy signing certificates is bounded",
        "remove one first",
    ))
}
