//! The attestation key's certificate from the attestation service's authority: asked for while the guest boots, and
//! renewed at a start within 90 days of its end. A start does not wait for it, and goes on without it.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use public_api::attestation::{AttachedData, DataType, SevSnpEvidence};
use public_api::attestation_keys::AttestationKeyCertificateRequest;
use vtpm::command::KeyPublic;

use super::keeper::Keeper;
use super::owner::lock;
use super::record::AkRecord;
use super::world::{SecureProcessor, Services};
use crate::failure::Stop;
use crate::tpm::certificate::{is_for, wants_renewal};
use crate::tpm::front::Front;
use crate::tpm::identity::TpmError;
use crate::tpm::report::{VmConfiguration, hcl_claims, report_data};

/// What asking takes; of the running VM.
pub struct AkCertificate {
    pub(super) front: Arc<Mutex<Front>>,
    pub(super) keeper: Arc<Mutex<Keeper>>,
    pub(super) processor: Arc<dyn SecureProcessor>,
    pub(super) services: Arc<dyn Services>,
    pub(super) configuration: VmConfiguration,
    pub(super) now: Timestamp,
}

impl AkCertificate {
    /// Asks if there is need, and says in the log how it went.
    pub fn renew_or_log(&self) {
        match self.renew() {
            Ok(true) => tracing::info!("the attestation key has a new certificate"),
            Ok(false) => {}
            Err(stop) => {
                let failure = stop.failure();
                tracing::warn!(
                    code = failure.code,
                    what = failure.actual,
                    "no certificate for the attestation key; the next start asks again"
                );
            }
        }
    }

    /// Asks for a certificate if the VM has none of the authority's, or one that ends soon. True if it has a new one.
    pub fn renew(&self) -> Result<bool, Stop> {
        if !wants_renewal(&lock(&self.keeper).record.ak.certificate, self.now) {
            return Ok(false);
        }
        let front = || self.front.lock().unwrap_or_else(PoisonError::into_inner);
        let key = front().attestation_key().ok_or(TpmError::KeyKind("attestation key"))?;
        let ak = key.rsa().ok_or(TpmError::KeyKind("attestation key"))?;
        let certificate = self.ask(&key)?;
        if !is_for(&certificate, ak) {
            return Err(TpmError::KeyKind("attestation key, in the certificate of the service").into());
        }
        {
            let mut keeper = lock(&self.keeper);
            keeper.record.ak = AkRecord::new(ak, certificate.clone());
            keeper.record_changed();
            keeper.commit()?;
        }
        front().replace_certificate(&certificate)?;
        Ok(true)
    }

    fn ask(&self, key: &KeyPublic) -> Result<Vec<u8>, Stop> {
        let ak = key.rsa().ok_or(TpmError::KeyKind("attestation key"))?;
        let claims = hcl_claims(ak, &self.configuration, None)?;
        let found = self.processor.extended_report(report_data(&claims))?;
        let evidence = SevSnpEvidence {
            snp_report: found.report,
            vcek_cert_chain: found.certificates.into_bytes(),
            endorsements: None,
        };
        let report = serde_json::to_vec(&evidence).map_err(|error| TpmError::Report(error.to_string()))?;
        self.services.certify_attestation_key(&AttestationKeyCertificateRequest {
            report,
            runtime_data: AttachedData { data: claims, data_type: DataType::JSON },
            attestation_key: key.tpm2b_public.clone(),
        })
    }
}
