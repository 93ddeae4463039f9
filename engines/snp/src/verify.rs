//! The verification of a report: chain, revocation, signature over the raw bytes, then what the bytes say.
//!
//! ```text
//! chain ──► verify_chain ──► VerifiedChain ──► verify_report ──► VerifiedReport
//!           2 RSA signatures                   1 ECDSA signature
//! ```
//!
//! [`verify`] does both. Who verifies many reports of few chips keeps the [`VerifiedChain`], best in
//! [`crate::VerifiedChains`]: it is good until one of its certificates ends, which [`verify_report`] asks again, or is
//! revoked, which [`VerifiedChain::check`] asks again. Neither result has a public constructor.

use aws_lc_rs::signature::ParsedPublicKey;

use crate::UnixTime;
use crate::bytes::{array, field};
use crate::certificate::{Certificate, Validity};
use crate::chain::CertChain;
use crate::consistency;
use crate::crl::Crls;
use crate::ecdsa;
use crate::error::{CertificateRole, VerifyError};
use crate::extensions::{LeafExtensions, Owner};
use crate::policy::GuestPolicy;
use crate::product::{CpuIdentity, Product, Silicon};
use crate::report::{ECDSA_P384_SHA384, REPORT_SIZE, Report, ReportError, SIGNED_SIZE, SigningKey};
use crate::roots::{TrustAnchors, TrustRoot};
use crate::tcb::TcbVersion;

/// A chain that leads from a trusted root to a key that signs reports.
#[derive(Clone, Debug)]
pub struct VerifiedChain {
    root: TrustRoot,
    extensions: LeafExtensions,
    key: ParsedPublicKey,
    validity: [Validity; 3],
    /// What a revocation list of the root can name.
    serials: [(CertificateRole, Vec<u8>); 2],
}

impl VerifiedChain {
    /// Where it ended.
    pub const fn root(&self) -> &TrustRoot {
        &self.root
    }

    /// What the leaf says about its key.
    pub const fn extensions(&self) -> &LeafExtensions {
        &self.extensions
    }

    /// Whether the chain is good at that time: dates and revocation, which change without it.
    ///
    /// # Errors
    /// A certificate out of its dates or revoked, a list that is missing or not current.
    pub fn check(&self, crls: &Crls, now: UnixTime) -> Result<(), VerifyError> {
        check_dates(&self.validity, now)?;
        crls.check(self.root.id(), owner_key(&self.extensions.owner), &self.serials, now)
    }
}

/// A report that a trusted root vouches for. What it says still has to be judged by a policy.
#[derive(Clone, Debug)]
pub struct VerifiedReport {
    report: Report,
    root: TrustRoot,
    extensions: LeafExtensions,
}

impl VerifiedReport {
    /// Its fields.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Who vouches.
    pub const fn root(&self) -> &TrustRoot {
        &self.root
    }

    /// The product line of the chip.
    pub const fn product(&self) -> Product {
        self.extensions.product
    }

    /// The guest policy.
    pub const fn policy(&self) -> GuestPolicy {
        self.report.policy
    }

    /// The key that signed: VCEK or VLEK.
    pub const fn signing_key(&self) -> SigningKey {
        owner_key(&self.extensions.owner)
    }

    /// The bytes that name the chip (64, Turin 8): of the certificate for a VCEK, of the report for a VLEK. Nothing when
    /// a VLEK signed and the platform masks the id.
    pub fn chip_id(&self) -> Option<&[u8]> {
        match &self.extensions.owner {
            Owner::Chip(id) => Some(id),
            Owner::Provider(_) if self.report.chip_id_masked() => None,
            Owner::Provider(_) => self.report.chip_id.get(..self.product().chip_id_len()),
        }
    }

    /// Whether the platform hides the chip's id. Then the report names no chip: with a VCEK the certificate does, with a
    /// VLEK nothing does.
    pub fn chip_id_masked(&self) -> bool {
        self.report.chip_id_masked()
    }

    /// The processor by its name in the field; nothing in reports of version 2, which say nothing of it.
    pub fn silicon(&self) -> Option<Silicon> {
        self.report.cpu.and_then(CpuIdentity::silicon)
    }

    /// The cloud provider's id, when a VLEK signed.
    pub fn csp_id(&self) -> Option<&str> {
        match &self.extensions.owner {
            Owner::Chip(_) => None,
            Owner::Provider(id) => Some(id),
        }
    }

    /// The TCB that the signing key was derived for.
    pub fn reported_tcb(&self) -> TcbVersion {
        self.report.reported_tcb.decode(self.product())
    }

    /// The TCB that ran when the report was made.
    pub fn current_tcb(&self) -> TcbVersion {
        self.report.current_tcb.decode(self.product())
    }

    /// The TCB below which the firmware cannot go back.
    pub fn committed_tcb(&self) -> TcbVersion {
        self.report.committed_tcb.decode(self.product())
    }

    /// The TCB at the guest's launch.
    pub fn launch_tcb(&self) -> TcbVersion {
        self.report.launch_tcb.decode(self.product())
    }
}

/// Verifies a report and its chain.
///
/// # Errors
/// The first check that failed; see [`VerifyError`].
pub fn verify(
    report: &[u8],
    chain: &CertChain,
    anchors: &TrustAnchors,
    crls: &Crls,
    now: UnixTime,
) -> Result<VerifiedReport, VerifyError> {
    let _: &[u8; REPORT_SIZE] = sized(report)?;
    verify_report(report, &verify_chain(chain, anchors, crls, now)?, now)
}

/// Verifies a chain: trusted root, names, dates, algorithms, signatures, revocation, AMD's extensions.
///
/// # Errors
/// The first check that failed; see [`VerifyError`].
pub fn verify_chain(
    chain: &CertChain,
    anchors: &TrustAnchors,
    crls: &Crls,
    now: UnixTime,
) -> Result<VerifiedChain, VerifyError> {
    let verified = prove(chain, anchors)?;
    verified.check(crls, now)?;
    Ok(verified)
}

/// What holds at any time: trusted root, names, algorithms, signatures, AMD's extensions.
pub(crate) fn prove(chain: &CertChain, anchors: &TrustAnchors) -> Result<VerifiedChain, VerifyError> {
    let CertChain { leaf, ask, ark } = chain;
    // The root's own signature was verified when it became an anchor; here its bytes are the anchor's.
    let Some(anchor) = anchors.find(ark) else {
        return Err(VerifyError::UntrustedRoot { root: ark.id(), subject: ark.subject().to_string() });
    };
    ask.check_extensions(CertificateRole::Ask)?;
    ask.check_issued_by(ark, CertificateRole::Ask)?;
    leaf.check_extensions(CertificateRole::Leaf)?;
    leaf.check_issued_by(ask, CertificateRole::Leaf)?;
    let extensions = LeafExtensions::parse(leaf.extensions()).map_err(VerifyError::Extensions)?;
    if let TrustRoot::Amd(root) = anchor.root
        && root != extensions.product
    {
        return Err(VerifyError::RootProduct { certificate: extensions.product, root });
    }
    check_names(leaf, owner_key(&extensions.owner))?;
    let key = leaf.p384_key().and_then(|point| ecdsa::key(&point)).ok_or(VerifyError::LeafKey)?;
    let validity = [
        ark.validity(CertificateRole::Ark),
        ask.validity(CertificateRole::Ask),
        leaf.validity(CertificateRole::Leaf),
    ];
    let serials = [(CertificateRole::Ark, ark), (CertificateRole::Ask, ask)]
        .map(|(role, c)| (role, c.serial().to_vec()));
    Ok(VerifiedChain { root: anchor.root, extensions, key, validity, serials })
}

/// AMD's names (57230, certificate formats): an ASK issues SEV-VCEK, an ASVK, whose name begins with SEV-VLEK, issues
/// SEV-VLEK. A development authority may write something behind them.
fn check_names(leaf: &Certificate, kind: SigningKey) -> Result<(), VerifyError> {
    let subject = leaf.common_name().unwrap_or_default();
    if !subject.starts_with(&format!("SEV-{kind}")) {
        return Err(VerifyError::LeafSubject { kind, subject: leaf.subject().to_string() });
    }
    let issuer = leaf.issuer_common_name().unwrap_or_default();
    if issuer.starts_with("SEV-VLEK") != (kind == SigningKey::Vlek) {
        return Err(VerifyError::LeafIssuer { kind, issuer: leaf.issuer().to_string() });
    }
    Ok(())
}

/// Verifies a report under a chain that was verified before.
///
/// # Errors
/// The first check that failed; see [`VerifyError`].
pub fn verify_report(
    report: &[u8],
    chain: &VerifiedChain,
    now: UnixTime,
) -> Result<VerifiedReport, VerifyError> {
    let raw = sized(report)?;
    check_dates(&chain.validity, now)?;
    check_signature(raw, &chain.key)?;
    let report = Report::parse(raw).map_err(VerifyError::Report)?;
    check_key(&report, &chain.extensions.owner)?;
    check_product(&report, chain.extensions.product)?;
    check_chip(&report, &chain.extensions)?;
    check_tcb(&report, &chain.extensions)?;
    consistency::check(&report, chain.extensions.product)?;
    Ok(VerifiedReport { report, root: chain.root, extensions: chain.extensions.clone() })
}

fn sized(report: &[u8]) -> Result<&[u8; REPORT_SIZE], VerifyError> {
    report.try_into().map_err(|_| VerifyError::Report(ReportError::Size { actual: report.len() }))
}

fn check_dates(validity: &[Validity; 3], now: UnixTime) -> Result<(), VerifyError> {
    validity.iter().try_for_each(|validity| validity.check(now))
}

/// The signature comes before every other look into the bytes, and covers them as they came.
fn check_signature(raw: &[u8; REPORT_SIZE], key: &ParsedPublicKey) -> Result<(), VerifyError> {
    let algorithm = u32::from_le_bytes(field::<0x034, 4, _>(raw));
    if algorithm != ECDSA_P384_SHA384 {
        return Err(VerifyError::SignatureAlgorithm { actual: algorithm });
    }
    let rest: [u8; 368] = field::<{ SIGNED_SIZE + 144 }, 368, _>(raw);
    let signature = ecdsa::signature(raw, SIGNED_SIZE).filter(|_| rest == [0; 368]);
    let signature = signature.ok_or(VerifyError::SignatureMalformed)?;
    let signed: [u8; SIGNED_SIZE] = array(raw, 0).ok_or(VerifyError::SignatureMalformed)?;
    if ecdsa::verify(key, &signed, &signature) { Ok(()) } else { Err(VerifyError::ReportSignature) }
}

const fn owner_key(owner: &Owner) -> SigningKey {
    match owner {
        Owner::Chip(_) => SigningKey::Vcek,
        Owner::Provider(_) => SigningKey::Vlek,
    }
}

fn check_key(report: &Report, owner: &Owner) -> Result<(), VerifyError> {
    let certificate = owner_key(owner);
    let masked = report.mask_chip_key && certificate == SigningKey::Vcek;
    if report.signing_key != certificate || masked {
        let report = if masked { SigningKey::None } else { report.signing_key };
        return Err(VerifyError::SigningKey { report, certificate });
    }
    Ok(())
}

fn check_product(report: &Report, certificate: Product) -> Result<(), VerifyError> {
    let Some(cpu) = report.cpu else {
        return Ok(());
    };
    match cpu.product() {
        None => Err(VerifyError::UnknownSilicon { cpu }),
        Some(report) if report != certificate => Err(VerifyError::Product { report, certificate }),
        Some(_) => Ok(()),
    }
}

/// A masked id is zero; then the VCEK's signature alone says which chip it was.
fn check_chip(report: &Report, extensions: &LeafExtensions) -> Result<(), VerifyError> {
    let Owner::Chip(hwid) = &extensions.owner else {
        return Ok(());
    };
    let (id, rest) = report.chip_id.split_at_checked(hwid.len()).unwrap_or((&report.chip_id, &[]));
    let same = id == hwid.as_slice() && rest.iter().all(|byte| *byte == 0);
    if same || report.chip_id_masked() {
        return Ok(());
    }
    Err(VerifyError::ChipId { report: hex::encode(report.chip_id), certificate: hex::encode(hwid) })
}

fn check_tcb(report: &Report, extensions: &LeafExtensions) -> Result<(), VerifyError> {
    let reported = report.reported_tcb.decode(extensions.product).components();
    let certified = extensions.tcb.components();
    for ((component, report), (_, certificate)) in reported.into_iter().zip(certified) {
        if report != certificate {
            return Err(VerifyError::Tcb { component, report, certificate });
        }
    }
    Ok(())
}
