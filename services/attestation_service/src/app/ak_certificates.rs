//! `POST /attestationKeyCertificates`: certificates for attestation keys that permitted evidence binds.

use public_api::Denial;
use public_api::attestation_keys::AttestationKeyCertificateResponse;
use public_api::decision_log::Decision;
use serde_json::json;
use vtpm::RsaPublic;

use super::attest::{AttestError, Course, Service, sha256_hex};
use super::azure_guest::verify::{attestation_key, vm_id};
use super::claims::NonceSource;
use super::fields::{FieldError, Fields};
use super::provider::Provider;
use super::request::{Evidence, attached, evidence};
use crate::store::Record;

/// A request whose fields could be read. Nothing in it is verified.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// The hardware report with the runtime claims that it binds.
    pub evidence: Evidence,
    /// TPM2B_PUBLIC of the key.
    pub attestation_key: Vec<u8>,
}

impl CertificateRequest {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, FieldError> {
        let fields = Fields::parse("", body, &["report", "runtimeData", "attestationKey"])?;
        let found = evidence(&fields.bytes("report")?)?;
        let runtime_data = attached(&fields, "runtimeData")?;
        if runtime_data.is_none() {
            return Err(FieldError::new("runtimeData", "missing"));
        }
        Ok(Self {
            evidence: Evidence {
                report: found.snp_report,
                certificates: found.vcek_cert_chain,
                runtime_data,
                init_time_data: None,
            },
            attestation_key: fields.bytes("attestationKey")?,
        })
    }
}

/// A key that deserves a certificate.
struct Deserving {
    vm_id: String,
    key: RsaPublic,
    report_sha256: String,
}

impl Service {
    /// Evidence in, certificate out. The policy of `SevSnpVm` decides about the VM; it demands a report of VMPL 0.
    pub async fn certify_attestation_key(
        &self,
        provider: &Provider,
        request: CertificateRequest,
        now: i64,
    ) -> Result<AttestationKeyCertificateResponse, AttestError> {
        let detail = json!({"reportSha256": sha256_hex(&request.evidence.report)});
        let course = Course { subject: "attestation key".to_owned(), ..Course::begin(provider, detail, now) };
        let found = match self.deserving_key(request, now) {
            Ok(found) => found,
            Err(denial) => return Err(self.refuse(denial, course).await),
        };
        let certificate = self.ak_authority.certify(&found.vm_id, &found.key, now)?;
        let detail = json!({
            "reportSha256": found.report_sha256,
            "attestationKeyCertificateSha256": sha256_hex(&certificate),
        });
        let record = Record { decision: Decision::KeyChanged, subject: found.vm_id, denial: None, detail };
        self.store.record(record).await?;
        let authority = self.ak_authority.certificate().to_vec();
        Ok(AttestationKeyCertificateResponse { certificate, authority })
    }

    fn deserving_key(&self, request: CertificateRequest, now: i64) -> Result<Deserving, Box<Denial>> {
        let report_sha256 = sha256_hex(&request.evidence.report);
        let verified = self.appraiser.verify(request.evidence, now)?;
        let area = attestation_key(&request.attestation_key, Some(&verified))?;
        self.appraiser.decide(&verified, NonceSource::None)?;
        let vm_id = vm_id(&verified).ok_or_else(|| {
            Box::new(Denial::new(
                "VmIdMissing",
                "runtimeData.vm-configuration.vmUniqueId",
                "the VM's id",
                "missing",
                "a certificate names the VM whose attestation key it is for",
                "send the runtime claims of the HCL report at NV index 0x01400001",
            ))
        })?;
        Ok(Deserving { vm_id, key: area.key, report_sha256 })
    }
}
