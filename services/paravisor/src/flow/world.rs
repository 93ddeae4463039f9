//! What the flow needs of its surroundings.

use internal_api::paravisor::{Event, Failure, Step};
use public_api::attestation::AttestSevSnpVmRequest;
use public_api::attestation_keys::AttestationKeyCertificateRequest;
use public_api::keys::KeyReleaseParameters;
use zeroize::Zeroizing;

use crate::failure::Stop;
use crate::tpm::engine::{EngineError, TpmEngine};

/// A report and the certificates under which it verifies.
pub struct ExtendedReport {
    /// 1184 bytes.
    pub report: Vec<u8>,
    /// PEM of VCEK or VLEK, ASK, ARK.
    pub certificates: String,
}

/// The secure processor, as the paravisor reaches it (VMPL 0).
pub trait SecureProcessor: Send + Sync {
    /// A report over the given data.
    fn extended_report(&self, report_data: [u8; 64]) -> Result<ExtendedReport, Stop>;
}

/// The two services that a start needs.
pub trait Services: Send + Sync {
    /// A nonce of the attestation service.
    fn nonce(&self) -> Result<String, Stop>;
    /// Evidence for a token.
    fn attest(&self, request: &AttestSevSnpVmRequest) -> Result<String, Stop>;
    /// Evidence for a certificate of the vTPM's attestation key; its DER.
    fn certify_attestation_key(&self, request: &AttestationKeyCertificateRequest) -> Result<Vec<u8>, Stop>;
    /// A token for the key with this URL; the answer's JWS.
    fn release(&self, key_id: &str, parameters: &KeyReleaseParameters) -> Result<String, Stop>;
}

/// Makes the VM's TPM from its stored state, or a new one.
pub trait TpmFactory: Send + Sync {
    /// A TPM without power.
    fn tpm(&self, state: Option<Zeroizing<Vec<u8>>>) -> Result<Box<dyn TpmEngine>, EngineError>;
}

/// Who is told what happens.
pub trait Observer: Send + Sync {
    /// Something happened that the host may know.
    fn event(&self, event: Event);
    /// The VM must not run any more.
    fn refused(&self, failure: Failure);
    /// The boot to come is another one than the last evidence says.
    fn boot_chain_changed(&self);
}

/// Runs one step of a start between its two events.
pub fn step<T>(
    observer: &dyn Observer,
    step: Step,
    work: impl FnOnce() -> Result<T, Stop>,
) -> Result<T, Stop> {
    observer.event(Event::Step { step });
    let begun = std::time::Instant::now();
    reach(&format!("before {step:?}"));
    let done = work()?;
    reach(&format!("after {step:?}"));
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    observer.event(Event::StepDone { step, millis });
    Ok(done)
}

/// A point of this process in its fault plan.
pub(crate) fn reach(point: &str) {
    fault_plan::reach("paravisor", point);
}
