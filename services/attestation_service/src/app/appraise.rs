//! From evidence to claims or a denial. Pure: no database, no network, no clock. `POST /attest/SevSnpVm` and the offline
//! `verify` command both come through here.

use std::sync::{Arc, PoisonError, RwLock};

use policy::language::TokenProperties;
use public_api::Denial;
use public_api::attestation::{BootChainClaim, CLAIM_PRODUCT, CLAIM_REFERENCE, Claims};
use snp::{
    ChainDer, CrlScope, Crls, Explanation, Revocation, TrustAnchors, UnixTime, VerifiedChains, VerifiedReport,
};

use super::boot_reference::{self, BootReferences};
use super::bound_data::{check_host_data, check_report_data};
use super::claims::{self, NonceSource};
use super::minimum_tcb::TcbFloor;
use super::platform_policy::{Circumstances, PlatformPolicy, incoming};
use super::provider::in_force::InForce;
use super::reference::{References, one_of};
use super::request::Evidence;
use super::signed_document::PinnedKeys;
use crate::config::{Config, ConfigError, ReferenceConfig, read};

/// Claim `x-ms-compliance-status` of a VM that the default policy permits.
pub const COMPLIANT: &str = "azure-compliant-cvm";

/// Most chips whose verified chain is kept, some 2 KiB each.
const MAX_CHAINS: usize = 8192;

/// What evidence is judged by.
pub struct Appraiser {
    anchors: TrustAnchors,
    /// Chains that were verified before: a chip that is known costs one signature check.
    chains: VerifiedChains,
    crls: RwLock<Arc<Crls>>,
    references: References,
    boot_references: BootReferences,
    policy: PlatformPolicy,
    crl_required: bool,
    crl_max_age: Option<i64>,
    minimum_tcb: TcbFloor,
    development_roots_allowed: bool,
}

/// Where roots, revocation lists and reference values come from.
#[derive(Clone, Debug, Default)]
pub struct AppraiserConfig {
    /// PEM file of a development root that is trusted beside AMD's; giving it is the consent.
    pub development_root: Option<std::path::PathBuf>,
    /// Revocation lists, DER or PEM.
    pub crl_files: Vec<std::path::PathBuf>,
    /// Those for VLEKs.
    pub vlek_crl_files: Vec<std::path::PathBuf>,
    /// Whether every root needs a current list.
    pub crl_required: bool,
    /// For how many seconds a list counts after it was issued, whatever it says itself.
    pub crl_max_age: Option<i64>,
    /// PEM or JWKS of the keys that sign tables of minimum patch levels.
    pub minimum_tcb_signers: Vec<std::path::PathBuf>,
    /// PEM or JWKS of the keys that sign reference values of other services.
    pub reference_signers: Vec<std::path::PathBuf>,
    /// Accepted launches and patch levels.
    pub reference: ReferenceConfig,
}

/// A revocation list that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedCrl {
    /// Whose it is.
    pub root: snp::RootId,
    /// For which leaves.
    pub scope: CrlScope,
    /// Whether no later list of this root is known.
    pub newest: bool,
}

impl From<&Config> for AppraiserConfig {
    /// A development root counts only together with the switch.
    fn from(config: &Config) -> Self {
        let development_root = config.development_root.clone().filter(|_| config.allow_development_roots);
        Self {
            development_root,
            crl_files: config.crl_files.clone(),
            vlek_crl_files: config.vlek_crl_files.clone(),
            crl_required: config.crl_required,
            crl_max_age: config.crl_max_age.and_then(|seconds| i64::try_from(seconds).ok()),
            minimum_tcb_signers: config.minimum_tcb_signers.clone(),
            reference_signers: config.reference_signers.clone(),
            reference: config.reference(),
        }
    }
}

/// Evidence whose report is genuine and binds the data that came with it. Only [`Appraiser::verify`] makes one.
pub struct VerifiedEvidence {
    verified: VerifiedReport,
    evidence: Evidence,
    /// When it was verified, Unix seconds.
    at: i64,
}

/// What came of evidence that the policy permits. Only [`Appraiser::decide`] makes one.
pub struct Appraisal {
    /// The claims of the token, except ids, times and nonce.
    claims: Claims,
    form: TokenProperties,
}

/// What the policies in force say.
pub struct Verdict {
    /// Claims for a token, or why there is none.
    pub outcome: Result<Appraisal, Box<Denial>>,
    /// The version of the staged policy and why it would have refused.
    pub staged: Option<(u64, Box<Denial>)>,
}

impl Appraisal {
    /// The claims of the token, except ids, times and nonce.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The same, to be completed, and what the policy asks of the token's form.
    pub fn into_parts(self) -> (Claims, TokenProperties) {
        (self.claims, self.form)
    }
}

impl VerifiedEvidence {
    /// The genuine report.
    pub fn report(&self) -> &VerifiedReport {
        &self.verified
    }

    /// PEM of its chain.
    pub fn certificates(&self) -> &[u8] {
        &self.evidence.certificates
    }

    /// The nonce in the runtime data that the report binds.
    pub fn bound_nonce(&self) -> Option<&str> {
        self.evidence.runtime_data.as_ref()?.text("nonce")
    }

    /// The runtime data that the report binds, where they are JSON.
    pub fn runtime_claims(&self) -> Option<&serde_json::Value> {
        self.evidence.runtime_data.as_ref().map(|data| &data.shown)
    }

    /// The boot chain that the paravisor sealed to, as it states it in what its report binds.
    pub fn stated_boot_chain(&self) -> Option<BootChainClaim> {
        let paravisors = self.verified.report().vmpl == 0;
        paravisors.then(|| boot_reference::stated(self.runtime_claims())).flatten()
    }

    /// When it was verified, Unix seconds.
    pub fn at(&self) -> i64 {
        self.at
    }

    /// Whom the evidence is about: the VM's id in the launch document that HOST_DATA binds, else the chip's report id.
    pub fn subject(&self) -> String {
        let vm_id = self.evidence.init_time_data.as_ref().and_then(|data| data.text("vmId"));
        match vm_id {
            Some(vm_id) => vm_id.chars().take(100).collect(),
            None => format!("report {}", hex::encode(self.verified.report().report_id)),
        }
    }
}

impl Appraiser {
    /// Reads everything that evidence is judged by.
    pub fn load(config: &AppraiserConfig) -> Result<Self, ConfigError> {
        let mut anchors = TrustAnchors::amd();
        if let Some(path) = &config.development_root {
            let root = certificate_der(&read(path)?)
                .ok_or_else(|| ConfigError::value("development_root", "the file holds no certificate"))?;
            anchors = anchors
                .with_development_root(&root)
                .map_err(|error| ConfigError::value("development_root", crate::chain(&error)))?;
        }
        let mut crls =
            Crls::new(if config.crl_required { Revocation::Required } else { Revocation::IfPresent });
        let files = [
            ("crl_files", CrlScope::Vcek, &config.crl_files),
            ("vlek_crl_files", CrlScope::Vlek, &config.vlek_crl_files),
        ];
        for (key, scope, paths) in files {
            for path in paths {
                add_crl(&mut crls, scope, &read(path)?, &anchors)
                    .map_err(|problem| ConfigError::value(key, format!("{}: {problem}", path.display())))?;
            }
        }
        Ok(Self {
            crls: RwLock::new(Arc::new(crls)),
            anchors,
            chains: VerifiedChains::new(MAX_CHAINS),
            references: References::load(
                &config.reference,
                PinnedKeys::read("reference_signers", &config.reference_signers)?,
            )?,
            boot_references: BootReferences::default(),
            policy: PlatformPolicy::shipped(),
            crl_required: config.crl_required,
            crl_max_age: config.crl_max_age,
            minimum_tcb: TcbFloor::new(PinnedKeys::read("minimum_tcb_signers", &config.minimum_tcb_signers)?),
            development_roots_allowed: config.development_root.is_some(),
        })
    }

    /// Whether a development root is trusted.
    pub fn development_roots_allowed(&self) -> bool {
        self.development_roots_allowed
    }

    /// The signed table of minimum patch levels.
    pub fn minimum_tcb(&self) -> &TcbFloor {
        &self.minimum_tcb
    }

    /// The trust anchors.
    pub fn anchors(&self) -> &TrustAnchors {
        &self.anchors
    }

    /// The roots that are trusted.
    pub fn roots(&self) -> impl Iterator<Item = snp::TrustRoot> {
        self.anchors.roots()
    }

    /// The accepted launches.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// The boot chains of known images.
    pub fn boot_references(&self) -> &BootReferences {
        &self.boot_references
    }

    /// The policy that decides where a provider has set none.
    pub fn shipped(&self) -> &PlatformPolicy {
        &self.policy
    }

    /// The revocation lists in force.
    pub fn crls(&self) -> Arc<Crls> {
        Arc::clone(&self.crls.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether evidence is refused under a root without a current revocation list.
    pub fn crl_required(&self) -> bool {
        self.crl_required
    }

    /// Whether nothing can be verified yet, because lists are required and no root has one.
    pub fn lacks_every_crl(&self) -> bool {
        let crls = self.crls();
        let lacks = |scope, root| crls.fresh_until_for(scope, root).is_none();
        let lacks_both =
            |root: snp::TrustRoot| CrlScope::ALL.into_iter().all(|scope| lacks(scope, root.id()));
        self.crl_required && self.roots().all(lacks_both)
    }

    /// Takes in a newer revocation list (DER or PEM). An older one, or one that no trusted root signed, changes nothing.
    pub fn add_crl(&self, scope: CrlScope, file: &[u8]) -> Result<AddedCrl, String> {
        let (added, crls) = self.with_crl(scope, file)?;
        *self.crls.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(crls);
        Ok(added)
    }

    /// Verifies a revocation list and takes nothing in.
    pub fn try_crl(&self, scope: CrlScope, file: &[u8]) -> Result<AddedCrl, String> {
        self.with_crl(scope, file).map(|(added, _)| added)
    }

    fn with_crl(&self, scope: CrlScope, file: &[u8]) -> Result<(AddedCrl, Crls), String> {
        let (mut crls, mut alone) = (Crls::clone(&self.crls()), Crls::default());
        add_crl(&mut crls, scope, file, &self.anchors)?;
        let root = add_crl(&mut alone, scope, file, &self.anchors)?;
        let newest = crls.issued_on(scope, root) == alone.issued_on(scope, root);
        Ok((AddedCrl { root, scope, newest }, crls))
    }

    /// Until when the revocation list of a root for a scope counts.
    pub fn crl_until(&self, scope: CrlScope, root: &snp::RootId) -> Option<UnixTime> {
        let crls = self.crls();
        let (until, issued) = (crls.fresh_until_for(scope, *root)?, crls.issued_on(scope, *root)?);
        let aged = self.crl_max_age.map(|age| UnixTime(issued.0.saturating_add(age)));
        Some(aged.map_or(until, |aged| aged.min(until)))
    }

    /// A list may promise to hold for a year; the operator may want newer ones.
    fn check_crl_age(&self, verified: &VerifiedReport, now: i64) -> Result<(), Box<Denial>> {
        let (root, scope) = (verified.root().id(), CrlScope::of(verified.signing_key()));
        let (Some(max), Some(issued)) = (self.crl_max_age, self.crls().issued_on(scope, root)) else {
            return Ok(());
        };
        if now.saturating_sub(issued.0) <= max {
            return Ok(());
        }
        Err(refusal(
            "RevocationListTooOld",
            "revocation list",
            format!("a revocation list that was issued within the last {max} seconds"),
            format!("the {} list of root {root} was issued on {issued}", scope.name()),
            "crl_max_age of the configuration: an old list does not show the newest revocations",
            "fetch the current list from AMD's key distribution service, or import a bundle with it; check the clock",
        ))
    }

    /// Verifies signature, certificates and revocation, and that the report binds the attached data.
    pub fn verify(&self, evidence: Evidence, now: i64) -> Result<VerifiedEvidence, Box<Denial>> {
        let chain = ChainDer::from_pem(&evidence.certificates).map_err(|error| explained(error.explain()))?;
        let verified = self
            .chains
            .verify(&evidence.report, &chain, &self.anchors, &self.crls(), UnixTime(now))
            .map_err(|error| explained(error.explain()))?;
        self.check_crl_age(&verified, now)?;
        self.minimum_tcb.check(verified.product(), verified.reported_tcb(), verified.committed_tcb())?;
        let report = verified.report();
        if let Some(runtime) = &evidence.runtime_data {
            check_report_data(&report.report_data, runtime)?;
        }
        if let Some(init_time) = &evidence.init_time_data {
            check_host_data(&report.host_data, init_time)?;
        }
        Ok(VerifiedEvidence { verified, evidence, at: now })
    }

    /// The claims of verified evidence, before any policy has seen them.
    pub fn claims(&self, verified: &VerifiedEvidence, nonce: NonceSource) -> Claims {
        let reference = self.references.name(&verified.verified.report().measurement, verified.at);
        let mut claims =
            claims::of_evidence(&verified.verified, &verified.evidence, reference.as_deref(), nonce);
        boot_reference::add_claim(&mut claims, reference.and_then(|_| self.boot_reference(verified)));
        claims
    }

    /// The image whose boot chain the paravisor states. Its word counts where the report is one of VMPL 0, which is the
    /// paravisor's, and whoever calls has seen that the paravisor is a known one.
    fn boot_reference(&self, verified: &VerifiedEvidence) -> Option<String> {
        let chain = verified.stated_boot_chain()?;
        let name = self.boot_references.name(&chain, verified.at);
        name.or_else(|| self.references.imported().boot_name(&chain, verified.at))
    }

    /// What the policy is told beside the claims.
    pub fn circumstances(&self, verified: &VerifiedEvidence) -> Circumstances {
        Circumstances {
            development_roots_allowed: self.development_roots_allowed,
            minimum_tcb: self.references.minimum_tcb(verified.verified.product()),
        }
    }

    /// The same for stored claims.
    pub fn circumstances_of(&self, claims: &Claims) -> Circumstances {
        let product = claims.get(CLAIM_PRODUCT).and_then(serde_json::Value::as_str);
        let product = product.and_then(|name| name.parse::<snp::Product>().ok());
        Circumstances {
            development_roots_allowed: self.development_roots_allowed,
            minimum_tcb: product.map(|product| self.references.minimum_tcb(product)).unwrap_or_default(),
        }
    }

    /// Applies the shipped policy.
    pub fn decide(&self, verified: &VerifiedEvidence, nonce: NonceSource) -> Result<Appraisal, Box<Denial>> {
        self.judge(verified, self.claims(verified, nonce), &InForce::default()).outcome
    }

    /// Applies the shipped policy and what a provider has set. The shipped one decides whether the VM is called
    /// compliant; the provider's active one, if there is one, decides whether there is a token.
    pub fn judge(&self, verified: &VerifiedEvidence, mut claims: Claims, in_force: &InForce) -> Verdict {
        let incoming = incoming(&claims, self.circumstances(verified));
        let compliance = self.policy.decide_incoming(incoming.clone());
        if compliance.is_ok() {
            claims.insert("x-ms-compliance-status".to_owned(), COMPLIANT.into());
        }
        let staged = in_force.staged.as_ref().and_then(|policy| {
            let refused = policy.apply(incoming.clone(), &mut claims.clone()).err()?;
            Some((policy.version, refused))
        });
        let outcome = match &in_force.active {
            Some(policy) => policy.apply(incoming, &mut claims),
            None => compliance.map(|_| {
                claims.insert("x-ms-policy-hash".to_owned(), self.policy.hash().into());
                TokenProperties::default()
            }),
        };
        let outcome = match outcome {
            Ok(form) => Ok(Appraisal { claims, form }),
            Err(denial) => Err(self.with_boot_chain(self.with_measurement(denial, verified), verified)),
        };
        Verdict { outcome, staged }
    }

    /// An unknown boot chain is told with what differs from the nearest known one.
    fn with_boot_chain(&self, mut denial: Box<Denial>, verified: &VerifiedEvidence) -> Box<Denial> {
        self.boot_references.explain(&mut denial, verified.stated_boot_chain().as_ref(), verified.at);
        denial
    }

    /// An unknown measurement is told with the measurement, and with what it is if that can be told.
    fn with_measurement(&self, mut denial: Box<Denial>, verified: &VerifiedEvidence) -> Box<Denial> {
        if denial.claim == CLAIM_REFERENCE {
            let measurement = &verified.verified.report().measurement;
            if let Some(expired) = self.references.expired(measurement, verified.at) {
                return expired;
            }
            let names = self.references.names();
            denial.claim = "x-ms-sevsnpvm-launchmeasurement".to_owned();
            denial.expected = if names.is_empty() {
                "a configured launch; none is configured".to_owned()
            } else {
                one_of(&names)
            };
            denial.actual = match self.references.describe(measurement) {
                Some(known) => format!("{} ({known})", hex::encode(measurement)),
                None => format!("{} (of no firmware build that is known here)", hex::encode(measurement)),
            };
        }
        denial
    }
}

fn refusal(
    code: &str,
    claim: &str,
    expected: String,
    actual: String,
    rule: &str,
    remedy: &str,
) -> Box<Denial> {
    Box::new(Denial::new(code, claim, expected, actual, rule, remedy))
}

fn explained(explanation: Explanation) -> Box<Denial> {
    let Explanation { code, claim, expected, actual, rule, remedy } = explanation;
    Box::new(Denial::new(code, claim, expected, actual, rule, remedy))
}

/// The first certificate of a PEM file, or the file itself if it is DER.
fn certificate_der(file: &[u8]) -> Option<Vec<u8>> {
    use rustls_pki_types::pem::PemObject as _;
    if file.first() == Some(&0x30) {
        return Some(file.to_vec());
    }
    let der = rustls_pki_types::CertificateDer::from_pem_slice(file).ok()?;
    Some(der.to_vec())
}

fn add_crl(
    crls: &mut Crls,
    scope: CrlScope,
    file: &[u8],
    anchors: &TrustAnchors,
) -> Result<snp::RootId, String> {
    use rustls_pki_types::pem::PemObject as _;
    let pem;
    let der = match file.first() {
        Some(0x30) => file,
        _ => {
            pem = rustls_pki_types::CertificateRevocationListDer::from_pem_slice(file)
                .map_err(|error| error.to_string())?;
            pem.as_ref()
        }
    };
    crls.add_for(scope, der, anchors).map_err(|error| crate::chain(&error))
}
