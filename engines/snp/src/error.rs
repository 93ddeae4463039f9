//! Every reason for which a report is refused, one variant each. `explain.rs` puts them into words.

use std::fmt;

use crate::UnixTime;
use crate::extensions::ExtensionError;
use crate::policy::GuestPolicy;
use crate::product::{CpuIdentity, Product};
use crate::report::{FirmwareVersion, ReportError, SigningKey};
use crate::roots::RootId;

/// Which certificate of a chain is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateRole {
    /// VCEK or VLEK.
    Leaf,
    /// ASK or ASVK.
    Ask,
    /// ARK.
    Ark,
}

impl fmt::Display for CertificateRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "VCEK or VLEK certificate",
            Self::Ask => "ASK certificate",
            Self::Ark => "ARK certificate",
        })
    }
}

/// Why a report was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The chain ends in a root that is not trusted.
    #[error("the certificate chain ends in a root that is not trusted ({root})")]
    UntrustedRoot {
        /// SHA-256 of its DER.
        root: RootId,
        /// Its subject, for people.
        subject: String,
    },
    /// A certificate names another issuer.
    #[error("the {role} was issued by `{actual}`, not by `{expected}`")]
    Issuer {
        /// Which.
        role: CertificateRole,
        /// Subject of the next certificate.
        expected: String,
        /// Issuer of this one.
        actual: String,
    },
    /// A certificate is signed with another algorithm.
    #[error("the {role} is signed with {actual}")]
    CertificateAlgorithm {
        /// Which.
        role: CertificateRole,
        /// Its algorithm.
        actual: String,
    },
    /// A certificate names one algorithm where it is signed and another where its signature stands.
    #[error("the {role} names two signature algorithms")]
    AlgorithmsDiffer {
        /// Which.
        role: CertificateRole,
    },
    /// A certificate is not of version 3.
    #[error("the {role} is not of X.509 version 3")]
    CertificateVersion {
        /// Which.
        role: CertificateRole,
    },
    /// The issuer's key is not RSA-4096.
    #[error("the key that signed the {role} is not an RSA key of 4096 bits")]
    IssuerKey {
        /// Whose issuer.
        role: CertificateRole,
    },
    /// A certificate's signature is wrong.
    #[error("the signature of the {role} is wrong")]
    CertificateSignature {
        /// Which.
        role: CertificateRole,
    },
    /// A certificate may not issue others.
    #[error("the {role} may not issue certificates")]
    NotAnIssuer {
        /// Which.
        role: CertificateRole,
    },
    /// A certificate's key is for something else than signing certificates.
    #[error("the key of the {role} is not for signing certificates")]
    KeyUsage {
        /// Which.
        role: CertificateRole,
    },
    /// The leaf says that it may issue certificates.
    #[error("the VCEK or VLEK certificate says that it may issue certificates")]
    LeafIssues,
    /// The leaf's subject is not that of its kind.
    #[error("the certificate of a {kind} names `{subject}`")]
    LeafSubject {
        /// By its extensions.
        kind: SigningKey,
        /// Its subject.
        subject: String,
    },
    /// The leaf's issuer issues leaves of the other kind.
    #[error("the certificate of a {kind} was issued by `{issuer}`")]
    LeafIssuer {
        /// By its extensions.
        kind: SigningKey,
        /// Its issuer.
        issuer: String,
    },
    /// A certificate has a critical extension that is not understood.
    #[error("the {role} has the critical extension {oid}, which is not understood")]
    CriticalExtension {
        /// Which.
        role: CertificateRole,
        /// The extension.
        oid: String,
    },
    /// A certificate is not valid yet.
    #[error("the {role} is valid from {not_before} on; now is {now}")]
    NotYetValid {
        /// Which.
        role: CertificateRole,
        /// From when.
        not_before: UnixTime,
        /// The time given.
        now: UnixTime,
    },
    /// A certificate is not valid any more.
    #[error("the {role} was valid until {not_after}; now is {now}")]
    Expired {
        /// Which.
        role: CertificateRole,
        /// Until when.
        not_after: UnixTime,
        /// The time given.
        now: UnixTime,
    },
    /// A revocation list is demanded and there is none.
    #[error("there is no revocation list of root {root} for {kind} certificates")]
    CrlMissing {
        /// Whose.
        root: RootId,
        /// For the authorities of which keys.
        kind: SigningKey,
    },
    /// The revocation list is not current.
    #[error("the revocation list of root {root} holds from {this_update} to {next_update}; now is {now}")]
    CrlNotCurrent {
        /// Whose.
        root: RootId,
        /// From when.
        this_update: UnixTime,
        /// Until when.
        next_update: UnixTime,
        /// The time given.
        now: UnixTime,
    },
    /// A certificate was revoked.
    #[error("the {role} with serial number {serial} was revoked")]
    Revoked {
        /// Which.
        role: CertificateRole,
        /// Hex.
        serial: String,
    },
    /// AMD's extensions of the leaf are not as they must be.
    #[error("the extensions of the VCEK or VLEK certificate")]
    Extensions(#[source] ExtensionError),
    /// The leaf's key is not P-384.
    #[error("the key of the VCEK or VLEK certificate is not an ECDSA key on P-384")]
    LeafKey,
    /// The leaf names another product than AMD's root.
    #[error("the certificate is for {certificate}, but its root is that of {root}")]
    RootProduct {
        /// Of the leaf's productName.
        certificate: Product,
        /// Of the root.
        root: Product,
    },
    /// Wrong length, version or selector.
    #[error("the attestation report")]
    Report(#[source] ReportError),
    /// The report says that it is signed otherwise.
    #[error("signature algorithm {actual} of the report is not ECDSA P-384 with SHA-384 (1)")]
    SignatureAlgorithm {
        /// SIGNATURE_ALGO.
        actual: u32,
    },
    /// The signature field cannot be a signature.
    #[error("the signature field of the report is malformed")]
    SignatureMalformed,
    /// The signature is wrong.
    #[error("the signature of the report is wrong")]
    ReportSignature,
    /// The platform does not sign, or with another key than the certificate's.
    #[error("the report is signed by {report}, the certificate is that of a {certificate}")]
    SigningKey {
        /// SIGNING_KEY of the report.
        report: SigningKey,
        /// By the certificate's extensions.
        certificate: SigningKey,
    },
    /// Silicon that this crate does not know.
    #[error("the report is of unknown silicon: {cpu}")]
    UnknownSilicon {
        /// As reported.
        cpu: CpuIdentity,
    },
    /// Report and certificate name different products.
    #[error("the report is of {report}, the certificate of {certificate}")]
    Product {
        /// By the report's CPUID fields.
        report: Product,
        /// By the certificate's productName.
        certificate: Product,
    },
    /// Report and certificate name different chips.
    #[error("the report is of chip {report}, the certificate of chip {certificate}")]
    ChipId {
        /// CHIP_ID, hex.
        report: String,
        /// hwID, hex.
        certificate: String,
    },
    /// The key was derived for another TCB than the report claims.
    #[error("{component} is {report} in the report and {certificate} in the certificate")]
    Tcb {
        /// AMD's name of the component.
        component: &'static str,
        /// REPORTED_TCB.
        report: u8,
        /// The extension.
        certificate: u8,
    },
    /// A chip id of more bytes than the product's chips have.
    #[error("the chip id {report} has more bytes than a chip id of {product}")]
    ChipIdLength {
        /// CHIP_ID, hex.
        report: String,
        /// Of the certificate.
        product: Product,
    },
    /// POLICY bit 17 is zero.
    #[error("bit 17 of the guest policy {policy} is not one")]
    PolicyReserved {
        /// POLICY.
        policy: GuestPolicy,
    },
    /// POLICY has bits that nobody here understands.
    #[error("the guest policy {policy} has unknown bits: {unknown:#x}")]
    PolicyUnknown {
        /// POLICY.
        policy: GuestPolicy,
        /// Those bits.
        unknown: u64,
    },
    /// A privilege level that does not exist.
    #[error("there is no VMPL {vmpl}")]
    Vmpl {
        /// VMPL.
        vmpl: u32,
    },
    /// An author key certified the ID key, and its digest is zero.
    #[error("an author key was given, and its digest is zero")]
    AuthorKeyMissing,
    /// No author key certified the ID key, and there is a digest of one.
    #[error("no author key was given, and there is a digest of one")]
    AuthorKeyUnexpected,
    /// An author key certified an ID key that is not there.
    #[error("an author key was given, and the digest of the ID key is zero")]
    IdKeyMissing,
    /// A component of a TCB is above what bounds it.
    #[error("{component} is {lower} in {name} and {upper} in {bound}")]
    TcbOrder {
        /// AMD's name of the component.
        component: &'static str,
        /// The TCB that is too high.
        name: &'static str,
        /// Its level.
        lower: u8,
        /// The TCB that bounds it.
        bound: &'static str,
        /// Its level.
        upper: u8,
    },
    /// The committed firmware is newer than the one that runs.
    #[error("firmware {committed} is committed and {current} runs")]
    VersionOrder {
        /// COMMITTED_VERSION.
        committed: FirmwareVersion,
        /// CURRENT_VERSION.
        current: FirmwareVersion,
    },
}
