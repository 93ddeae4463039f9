//! Report, token, key: what the paravisor does twice at each start and once at a clean stop.

use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::KeyPair as _;
use internal_api::paravisor::{Event, Step};
use public_api::attestation::{
    AttachedData, AttestSevSnpVmRequest, BootChainClaim, DataType, EvidenceBundle, GuestStateClaim,
    ParavisorRuntimeClaims, SevSnpEvidence,
};
use public_api::encoding::to_base64url;
use public_api::jwk::Jwk;
use serde_json::Value;
use vtpm::predict::{Loader, Prediction};

use super::launch::{Launch, malformed};
use super::release::{self, Released, Wanted};
use super::world::{Observer, SecureProcessor, Services, step};
use crate::failure::Stop;
use crate::tpm::report::{VmConfiguration, report_data};

/// The key to which released keys are wrapped; it lives as long as this process.
pub struct TransferKey {
    public: Jwk,
    pub(super) private: OaepPrivateDecryptingKey,
}

/// A transfer key in the making, on a thread of its own: its primes take longer than all that can be done meanwhile.
pub struct PendingTransferKey(JoinHandle<Result<TransferKey, Stop>>);

impl PendingTransferKey {
    /// Waits until the key is there.
    pub fn wait(self) -> Result<TransferKey, Stop> {
        self.0.join().map_err(|_| malformed("transfer key", "its thread panicked"))?
    }
}

impl TransferKey {
    /// Begins to make a new key.
    pub fn begin() -> Result<PendingTransferKey, Stop> {
        let thread = thread::Builder::new().name("transfer-key".to_owned()).spawn(Self::generate);
        Ok(PendingTransferKey(thread.map_err(|error| Stop::io("making the transfer key", &error))?))
    }

    /// A new RSA-2048 key.
    fn generate() -> Result<Self, Stop> {
        let fault = |_| malformed("transfer key", "it could not be made");
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(fault)?;
        let number = |bytes: &[u8]| Some(to_base64url(bytes));
        let public = Jwk {
            kid: Some("HCLTransferKey".to_owned()),
            key_ops: vec!["encrypt".to_owned()],
            kty: "RSA".to_owned(),
            e: number(pair.public_key().exponent().big_endian_without_leading_zero()),
            n: number(pair.public_key().modulus().big_endian_without_leading_zero()),
            ..Jwk::default()
        };
        let der = pair.as_der().map_err(fault)?;
        let private = PrivateDecryptingKey::from_pkcs8(der.as_ref())
            .map_err(|_| malformed("transfer key", "it could not be read back"))?;
        let private = OaepPrivateDecryptingKey::new(private).map_err(fault)?;
        Ok(Self { public, private })
    }
}

/// What attesting led to.
pub struct Attested {
    token: String,
    generation: u64,
    /// JSON of the [`EvidenceBundle`].
    pub evidence: String,
}

/// What is durable: what the key service may be told of.
pub struct Written {
    /// The generation.
    pub generation: u64,
    /// The key that it is under.
    pub key_id: String,
    /// The boot that the volume key is sealed to.
    pub sealed: Option<Prediction>,
}

/// Everything that attesting needs; the same for all generations of one start.
pub struct Attestor {
    /// The launch.
    pub launch: Arc<Launch>,
    /// Reports.
    pub processor: Arc<dyn SecureProcessor>,
    /// Tokens and keys.
    pub services: Arc<dyn Services>,
    /// To whom keys are wrapped.
    pub transfer: TransferKey,
    /// What the VM is configured to be.
    pub configuration: VmConfiguration,
    /// Fingerprint of the recovery document's key, once it is known.
    pub recovery: OnceLock<String>,
}

impl Attestor {
    /// Evidence for a token that is good for one generation of the guest state.
    pub fn attest(&self, generation: u64, boot_chain: Option<BootChainClaim>) -> Result<Attested, Stop> {
        let nonce = self.services.nonce()?;
        let claims = ParavisorRuntimeClaims {
            keys: vec![self.transfer.public.clone()],
            vm_configuration: json(&self.configuration)?,
            guest_state: GuestStateClaim { vm_id: self.launch.document.vm_id.clone(), generation },
            boot_chain,
            recovery_document_key: self.recovery.get().cloned(),
            nonce: nonce.clone(),
        };
        let runtime = json(&claims)?.to_string().into_bytes();
        let found = self.processor.extended_report(report_data(&runtime))?;
        self.launch.check_report(&found.report)?;
        let evidence = SevSnpEvidence {
            snp_report: found.report.clone(),
            vcek_cert_chain: found.certificates.clone().into_bytes(),
            endorsements: None,
        };
        let attached = |data: &[u8]| Some(AttachedData { data: data.to_vec(), data_type: DataType::JSON });
        let token = self.services.attest(&AttestSevSnpVmRequest {
            report: json(&evidence)?.to_string().into_bytes(),
            runtime_data: attached(&runtime),
            init_time_data: attached(&self.launch.bytes),
            nonce: Some(Value::String(nonce)),
            draft_policy_for_attestation: None,
        })?;
        let bundle = EvidenceBundle {
            version: 1,
            snp_report: found.report,
            certificate_chain: found.certificates,
            runtime_data: runtime,
            init_time_data: self.launch.bytes.clone(),
            token: token.clone(),
        };
        Ok(Attested { token, generation, evidence: json(&bundle)?.to_string() })
    }

    fn release(&self, wanted: Wanted<'_>, attested: &Attested) -> Result<Released, Stop> {
        release::release(self.services.as_ref(), &self.transfer, wanted, &attested.token)
    }

    /// Attests and releases as two steps that the observer sees.
    pub(super) fn key(
        &self,
        observer: &dyn Observer,
        wanted: Wanted<'_>,
        generation: u64,
    ) -> Result<Released, Stop> {
        let attested = step(observer, Step::Attest, || self.attest(generation, None))?;
        step(observer, Step::ReleaseKey, || self.release(wanted, &attested))
    }

    /// Attests and releases.
    pub(super) fn ask(
        &self,
        wanted: Wanted<'_>,
        generation: u64,
        boot: Option<&Prediction>,
    ) -> Result<(Attested, Released), Stop> {
        let attested = self.attest(generation, boot.map(boot_chain))?;
        let released = self.release(wanted, &attested)?;
        Ok((attested, released))
    }

    /// Tells the key service that a generation is written, so that older ones are refused from now on. The key that comes
    /// back is the one in use and is dropped.
    pub fn advance(&self, written: &Written) -> Result<Attested, Stop> {
        let wanted = Wanted { key_id: &written.key_id, successor: None };
        Ok(self.ask(wanted, written.generation, written.sealed.as_ref())?.0)
    }

    /// New evidence for a boot chain that changed, without a key.
    pub fn renew_evidence(&self, generation: u64, boot: &Prediction) -> Result<Event, Stop> {
        let evidence = self.attest(generation, Some(boot_chain(boot)))?.evidence;
        Ok(Event::Evidence { evidence })
    }
}

impl Attested {
    /// The event that shows new evidence.
    pub fn evidence(self) -> Event {
        Event::Evidence { evidence: self.evidence }
    }

    /// The event that lets the guest start.
    pub fn ready(self) -> Event {
        Event::Ready { generation: self.generation, evidence: self.evidence }
    }
}

/// A prediction as evidence and the inspection of images state it.
pub fn boot_chain(prediction: &Prediction) -> BootChainClaim {
    BootChainClaim {
        loader: loader_name(prediction.loader).to_owned(),
        entry: prediction.entry.clone(),
        version: prediction.version.clone(),
        pcrs: prediction.pcrs.iter().map(|(pcr, value)| (*pcr, hex::encode(value))).collect(),
    }
}

/// A loader's name in claims and manifests.
pub fn loader_name(loader: Loader) -> &'static str {
    match loader {
        Loader::SystemdBoot => "systemd-boot",
        Loader::Grub => "grub",
        Loader::Uki => "uki",
    }
}

fn json(value: &impl serde::Serialize) -> Result<Value, Stop> {
    serde_json::to_value(value).map_err(|error| malformed("evidence", &error.to_string()))
}
