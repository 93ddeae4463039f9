//! A refusal in words: what was claimed, what would have been right, what was found, which rule decided, what to do.

use crate::error::{CertificateRole, VerifyError};
use crate::report::{ReportError, SigningKey};

/// The five parts of a refusal and its stable code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// For programs; never changes its meaning.
    pub code: String,
    /// What was claimed.
    pub claim: String,
    /// What would have been accepted.
    pub expected: String,
    /// What was found.
    pub actual: String,
    /// The rule that decided: document and section.
    pub rule: String,
    /// What the reader can do.
    pub remedy: String,
}

const KDS: &str = "AMD 57230 (VCEK certificate and KDS interface), certificate formats";
const RFC: &str = "RFC 5280, section 6.1, certification path validation";
const ABI_REPORT: &str = "AMD 56860 (SNP firmware ABI), section 7.3, table ATTESTATION_REPORT";

impl VerifyError {
    /// The refusal in words.
    pub fn explain(&self) -> Explanation {
        Explanation {
            code: self.code().to_owned(),
            claim: self.claim(),
            expected: self.expected(),
            actual: self.actual(),
            rule: self.rule().to_owned(),
            remedy: self.remedy().to_owned(),
        }
    }

    /// The stable code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UntrustedRoot { .. } => "RootNotTrusted",
            Self::Issuer { .. } => "CertificateIssuerWrong",
            Self::CertificateAlgorithm { .. } => "CertificateAlgorithmWrong",
            Self::IssuerKey { .. } => "IssuerKeyWrong",
            Self::AlgorithmsDiffer { .. } => "CertificateAlgorithmsDiffer",
            Self::CertificateVersion { .. } => "CertificateVersionWrong",
            Self::KeyUsage { .. } => "CertificateKeyUsageWrong",
            Self::LeafIssues => "CertificateIsAnIssuer",
            Self::LeafSubject { .. } => "CertificateSubjectWrong",
            Self::LeafIssuer { .. } => "CertificateIssuerKindWrong",
            Self::CertificateSignature { .. } => "CertificateSignatureInvalid",
            Self::NotAnIssuer { .. } => "CertificateNotAnIssuer",
            Self::CriticalExtension { .. } => "CertificateExtensionUnknown",
            Self::NotYetValid { .. } => "CertificateNotYetValid",
            Self::Expired { .. } => "CertificateExpired",
            Self::CrlMissing { .. } => "RevocationListMissing",
            Self::CrlNotCurrent { .. } => "RevocationListNotCurrent",
            Self::Revoked { .. } => "CertificateRevoked",
            Self::Extensions(error) => error.code(),
            Self::LeafKey => "CertificateKeyWrong",
            Self::RootProduct { .. } => "CertificateProductMismatch",
            Self::Report(ReportError::Size { .. }) => "ReportSizeWrong",
            Self::Report(ReportError::Version { .. }) => "ReportVersionUnknown",
            Self::Report(ReportError::Reserved { .. }) => "ReportReservedNotZero",
            Self::Report(ReportError::SigningKey { .. }) => "ReportMalformed",
            Self::SignatureAlgorithm { .. } => "ReportSignatureAlgorithmWrong",
            Self::SignatureMalformed => "ReportSignatureMalformed",
            Self::ReportSignature => "ReportSignatureInvalid",
            Self::SigningKey { .. } => "ReportSigningKeyMismatch",
            Self::UnknownSilicon { .. } => "SiliconUnknown",
            Self::Product { .. } => "ProductMismatch",
            Self::ChipId { .. } => "ChipIdMismatch",
            Self::Tcb { .. } => "TcbMismatch",
            Self::ChipIdLength { .. } => "ChipIdMalformed",
            Self::PolicyReserved { .. } => "GuestPolicyReservedBit",
            Self::PolicyUnknown { .. } => "GuestPolicyUnknownBit",
            Self::Vmpl { .. } => "VmplImpossible",
            Self::AuthorKeyMissing => "AuthorKeyDigestMissing",
            Self::AuthorKeyUnexpected => "AuthorKeyDigestUnexpected",
            Self::IdKeyMissing => "IdKeyDigestMissing",
            Self::TcbOrder { .. } => "TcbOrderImpossible",
            Self::VersionOrder { .. } => "FirmwareVersionOrderImpossible",
        }
    }

    fn claim(&self) -> String {
        match self {
            Self::UntrustedRoot { .. } => "root of the certificate chain".to_owned(),
            Self::Issuer { role, .. }
            | Self::CertificateAlgorithm { role, .. }
            | Self::IssuerKey { role }
            | Self::AlgorithmsDiffer { role }
            | Self::CertificateVersion { role }
            | Self::KeyUsage { role }
            | Self::CertificateSignature { role }
            | Self::NotAnIssuer { role }
            | Self::CriticalExtension { role, .. }
            | Self::NotYetValid { role, .. }
            | Self::Expired { role, .. }
            | Self::Revoked { role, .. } => role.to_string(),
            Self::CrlMissing { .. } | Self::CrlNotCurrent { .. } => "revocation list".to_owned(),
            Self::Extensions(error) => format!("{}, {}", CertificateRole::Leaf, error.extension()),
            Self::LeafKey
            | Self::LeafIssues
            | Self::LeafSubject { .. }
            | Self::LeafIssuer { .. }
            | Self::RootProduct { .. } => CertificateRole::Leaf.to_string(),
            Self::Report(_) => "SnpReport".to_owned(),
            Self::SignatureAlgorithm { .. } => "SnpReport.signature_algo".to_owned(),
            Self::SignatureMalformed | Self::ReportSignature => "SnpReport.signature".to_owned(),
            Self::SigningKey { .. } => "SnpReport.signing_key".to_owned(),
            Self::UnknownSilicon { .. } | Self::Product { .. } => "SnpReport.cpuid".to_owned(),
            Self::ChipId { .. } | Self::ChipIdLength { .. } => "SnpReport.chip_id".to_owned(),
            Self::PolicyReserved { .. } | Self::PolicyUnknown { .. } => "SnpReport.policy".to_owned(),
            Self::Vmpl { .. } => "SnpReport.vmpl".to_owned(),
            Self::AuthorKeyMissing | Self::AuthorKeyUnexpected => "SnpReport.author_key_digest".to_owned(),
            Self::IdKeyMissing => "SnpReport.id_key_digest".to_owned(),
            Self::TcbOrder { name, component, .. } => format!("SnpReport.{name}.{component}"),
            Self::VersionOrder { .. } => "SnpReport.committed_version".to_owned(),
            Self::Tcb { component, .. } => format!("SnpReport.reported_tcb.{component}"),
        }
    }

    fn expected(&self) -> String {
        let fixed = match self {
            Self::UntrustedRoot { .. } => {
                "one of AMD's roots, or a development root that was allowed explicitly"
            }
            Self::Issuer { expected, .. } => return format!("issued by `{expected}`"),
            Self::CertificateAlgorithm { .. } => "RSASSA-PSS with SHA-384 and a salt of 48 bytes",
            Self::IssuerKey { .. } => "an RSA key of 4096 bits",
            Self::CertificateSignature { .. } => "a signature of the issuer's key over the certificate",
            Self::NotAnIssuer { .. } => "basic constraints that say CA",
            Self::AlgorithmsDiffer { .. } => "one signature algorithm, named in both places",
            Self::CertificateVersion { .. } => "X.509 version 3",
            Self::KeyUsage { .. } => "a key usage that has keyCertSign",
            Self::LeafIssues => "a certificate that issues none",
            Self::LeafSubject { kind, .. } => return format!("a common name that begins with SEV-{kind}"),
            Self::LeafIssuer { kind: SigningKey::Vlek, .. } => "issued by an ASVK (SEV-VLEK-...)",
            Self::LeafIssuer { .. } => "issued by an ASK (SEV-...), not an ASVK",
            Self::ChipIdLength { product, .. } => {
                return format!("a chip id of {} bytes, then zeros", product.chip_id_len());
            }
            Self::PolicyReserved { .. } => "bit 17 of the guest policy set",
            Self::PolicyUnknown { .. } => "no bits above 25 in the guest policy",
            Self::Vmpl { .. } => "0 to 3, or 4294967295 when the host asked",
            Self::AuthorKeyMissing => "a digest of the author key, since AUTHOR_KEY_EN is set",
            Self::AuthorKeyUnexpected => "zeros, since AUTHOR_KEY_EN is not set",
            Self::IdKeyMissing => "a digest of the ID key that the author key certified",
            Self::TcbOrder { bound, upper, .. } => return format!("at most {upper}, as in {bound}"),
            Self::VersionOrder { current, .. } => return format!("at most {current}, the version that runs"),
            Self::CriticalExtension { .. } => "no critical extensions but key usage and basic constraints",
            Self::NotYetValid { not_before, .. } => return format!("a time from {not_before} on"),
            Self::Expired { not_after, .. } => return format!("a time until {not_after}"),
            Self::CrlMissing { .. } => "a revocation list signed by the root",
            Self::CrlNotCurrent { this_update, next_update, .. } => {
                return format!("a time from {this_update} to {next_update}");
            }
            Self::Revoked { .. } => "a certificate that its root did not revoke",
            Self::Extensions(_) => {
                "AMD's extensions: productName, the SPLs of the product, and hwID or cspID"
            }
            Self::LeafKey => "an ECDSA key on P-384",
            Self::RootProduct { root, .. } => return format!("a certificate for {root}"),
            Self::Report(ReportError::Size { .. }) => "1184 bytes",
            Self::Report(ReportError::Version { .. }) => "version 2, 3, 4 or 5",
            Self::Report(ReportError::Reserved { .. }) => "zero in every byte that the version reserves",
            Self::Report(ReportError::SigningKey { .. }) => "a signing key of 0 (VCEK) or 1 (VLEK)",
            Self::SignatureAlgorithm { .. } => "1 (ECDSA P-384 with SHA-384)",
            Self::SignatureMalformed => "r and s of at most 384 bits, little endian, then zeros",
            Self::ReportSignature => "a signature of the certificate's key over bytes 0 to 0x29F",
            Self::SigningKey { certificate, .. } => return format!("signed by the {certificate}"),
            Self::UnknownSilicon { .. } => "Milan, Genoa or Turin",
            Self::Product { certificate, .. } => return format!("a report of {certificate}"),
            Self::ChipId { certificate, .. } => {
                return format!("chip id {certificate}, as in the certificate");
            }
            Self::Tcb { certificate, .. } => return format!("{certificate}, as in the certificate"),
        };
        fixed.to_owned()
    }

    /// The value that was found; for what has no value of its own, the error's words.
    fn actual(&self) -> String {
        match self {
            Self::Extensions(error) => error.to_string(),
            Self::Report(error) => error.to_string(),
            Self::UntrustedRoot { root, subject } => format!("{root} ({subject})"),
            Self::Issuer { actual, .. } => format!("issued by `{actual}`"),
            Self::NotYetValid { now, .. } | Self::Expired { now, .. } | Self::CrlNotCurrent { now, .. } => {
                format!("the time {now}")
            }
            Self::Revoked { serial, .. } => format!("serial number {serial}, revoked"),
            Self::SignatureAlgorithm { actual } => actual.to_string(),
            Self::SigningKey { report, .. } => format!("signed by {report}"),
            Self::UnknownSilicon { cpu } => cpu.to_string(),
            Self::Product { report, .. } => format!("a report of {report}"),
            Self::ChipId { report, .. } => format!("chip id {report}"),
            Self::Tcb { report, .. } => report.to_string(),
            Self::TcbOrder { lower, .. } => lower.to_string(),
            Self::VersionOrder { committed, .. } => committed.to_string(),
            Self::LeafSubject { subject, .. } => subject.clone(),
            Self::LeafIssuer { issuer, .. } => format!("issued by `{issuer}`"),
            Self::Vmpl { vmpl } => vmpl.to_string(),
            other => other.to_string(),
        }
    }

    const fn rule(&self) -> &'static str {
        match self {
            Self::UntrustedRoot { .. } => "AMD 57230 (KDS), chain of trust; the roots are pinned by digest",
            Self::Issuer { .. }
            | Self::NotAnIssuer { .. }
            | Self::AlgorithmsDiffer { .. }
            | Self::CertificateVersion { .. }
            | Self::KeyUsage { .. }
            | Self::LeafIssues
            | Self::CriticalExtension { .. }
            | Self::CertificateSignature { .. }
            | Self::NotYetValid { .. }
            | Self::Expired { .. } => RFC,
            Self::CrlMissing { .. } | Self::CrlNotCurrent { .. } | Self::Revoked { .. } => {
                "RFC 5280, section 6.3, CRL validation"
            }
            Self::CertificateAlgorithm { .. }
            | Self::IssuerKey { .. }
            | Self::LeafKey
            | Self::LeafSubject { .. }
            | Self::LeafIssuer { .. } => KDS,
            Self::PolicyReserved { .. } | Self::PolicyUnknown { .. } => {
                "AMD 56860 (SNP firmware ABI), section 4.3, guest policy"
            }
            Self::ChipIdLength { .. }
            | Self::Vmpl { .. }
            | Self::AuthorKeyMissing
            | Self::AuthorKeyUnexpected
            | Self::IdKeyMissing => ABI_REPORT,
            Self::TcbOrder { .. } | Self::VersionOrder { .. } => {
                "AMD 56860 (SNP firmware ABI), SNP_CONFIG and SNP_COMMIT: reported <= committed <= current"
            }
            Self::Extensions(_) | Self::RootProduct { .. } => "AMD 57230 (KDS), VCEK custom extensions",
            Self::Report(_) | Self::UnknownSilicon { .. } | Self::Product { .. } => ABI_REPORT,
            Self::SignatureAlgorithm { .. } | Self::SignatureMalformed | Self::ReportSignature => {
                "AMD 56860 (SNP firmware ABI), section 7.3 and the format of ECDSA P-384 signatures"
            }
            Self::SigningKey { .. } => "AMD 56860 (SNP firmware ABI), section 7.3, field SIGNING_KEY",
            Self::ChipId { .. } => {
                "AMD 57230 (KDS), VCEK custom extensions: hwID equals the report's CHIP_ID"
            }
            Self::Tcb { .. } => {
                "AMD 57230 (KDS), VCEK custom extensions: the SPLs equal the report's REPORTED_TCB"
            }
        }
    }

    const fn remedy(&self) -> &'static str {
        match self {
            Self::UntrustedRoot { .. } => {
                "use a host with AMD SEV-SNP; for a development host, configure its root and allow development roots"
            }
            Self::Issuer { .. }
            | Self::CertificateSignature { .. }
            | Self::NotAnIssuer { .. }
            | Self::AlgorithmsDiffer { .. }
            | Self::CertificateVersion { .. }
            | Self::KeyUsage { .. }
            | Self::LeafIssues
            | Self::LeafSubject { .. }
            | Self::LeafIssuer { .. } => {
                "fetch the certificates of this chip anew from AMD's key distribution service"
            }
            Self::CertificateAlgorithm { .. }
            | Self::IssuerKey { .. }
            | Self::CriticalExtension { .. }
            | Self::LeafKey
            | Self::Extensions(_)
            | Self::RootProduct { .. } => "send the VCEK or VLEK, ASK and ARK that AMD issued for this chip",
            Self::NotYetValid { .. } => "check the clock of this machine",
            Self::Expired { .. } => {
                "fetch a new certificate from AMD's key distribution service; check the clock"
            }
            Self::CrlMissing { .. } | Self::CrlNotCurrent { .. } => {
                "fetch the current list from AMD's key distribution service (/vcek/v1/{product}/crl); check the clock"
            }
            Self::Revoked { .. } => "do not trust this host; fetch new certificates from AMD",
            Self::Report(_) | Self::SignatureAlgorithm { .. } | Self::SignatureMalformed => {
                "send the report's 1184 bytes exactly as the secure processor gave them"
            }
            Self::ReportSignature => {
                "send the report unaltered, with the certificate for its chip id and reported TCB"
            }
            Self::SigningKey { .. } => "send the certificate of the key that signed: VCEK or VLEK",
            Self::UnknownSilicon { .. } | Self::Product { .. } => {
                "use a Milan, Genoa or Turin host and the certificates of its product line"
            }
            Self::ChipId { .. } => "send the VCEK certificate of the chip that made the report",
            Self::PolicyReserved { .. }
            | Self::PolicyUnknown { .. }
            | Self::ChipIdLength { .. }
            | Self::Vmpl { .. }
            | Self::AuthorKeyMissing
            | Self::AuthorKeyUnexpected
            | Self::IdKeyMissing
            | Self::TcbOrder { .. }
            | Self::VersionOrder { .. } => {
                "do not trust this host: no firmware that is known makes such a report; if its firmware is newer than this \
                 program, update the program"
            }
            Self::Tcb { .. } => "fetch the certificate for the reported TCB: the host's firmware was updated",
        }
    }
}
