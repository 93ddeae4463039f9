//! The service's certificate authority for attestation keys of vTPMs.
//!
//! It certifies a key only when a genuine, permitted report of VMPL 0 binds it, and only a key that is an attestation key
//! ([`vtpm::public_area::RsaArea::check_attestation_key`]): a key that could sign what a guest hands it would let the
//! guest forge quotes under a good certificate (the kind of fault of CVE-2025-49707). Key and certificate are made at the
//! first start and kept, as the token signing key is.

use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use der::asn1::ObjectIdentifier;
use der::{Decode as _, Encode as _};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use vtpm::RsaPublic;
use x509_cert::Certificate;

use super::secret_file;
use super::seen::Seen;

const KEY_FILE: &str = "attestation-key-ca.key";
const CERTIFICATE_FILE: &str = "attestation-key-ca.pem";
/// Days for which a certificate holds.
pub const VALIDITY_DAYS: i64 = 365;
/// Years for which the authority's own certificate holds.
const AUTHORITY_YEARS: i32 = 20;
/// Seconds that a certificate is dated back, for clocks that are behind.
const BACKDATED: i64 = 3600;
/// `tcg-kp-AIKCertificate` (TCG credential profiles).
const AIK_PURPOSE: [u64; 5] = [2, 23, 133, 8, 3];
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// Certifies attestation keys.
pub struct AkAuthority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    subject: Vec<u8>,
    public: Vec<u8>,
    /// Certificates whose signature was found to hold: a VM brings the same one each time.
    signed: Seen,
}

/// Why there is no authority, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AkAuthorityError {
    /// Files of the data directory.
    #[error("reading or writing the attestation keys' authority in the data directory")]
    File(#[from] std::io::Error),
    /// Making key or certificate.
    #[error("making a certificate of the attestation keys' authority")]
    Make(#[from] rcgen::Error),
    /// The stored files are no key and certificate that belong together.
    #[error("the stored key or certificate of the attestation keys' authority cannot be read")]
    Stored,
    /// The system's random generator failed.
    #[error("making a certificate's serial number")]
    Random,
}

/// What a certificate of an attestation key is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AikCertificate {
    /// None was sent.
    Absent,
    /// Not of this authority, not of this key, or not valid now.
    Untrusted,
    /// Of this authority, of this key, and valid now.
    Valid,
}

impl AikCertificate {
    /// The claim's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Untrusted => "untrusted",
            Self::Valid => "valid",
        }
    }

    /// Judges a certificate (DER, empty for none) for a key as of `now` (Unix seconds).
    pub fn of(der: &[u8], key: &RsaPublic, authority: Option<&AkAuthority>, now: i64) -> Self {
        if der.is_empty() {
            return Self::Absent;
        }
        match authority {
            Some(authority) if authority.vouches_for(der, key, now) => Self::Valid,
            _ => Self::Untrusted,
        }
    }
}

impl AkAuthority {
    /// Opens or makes the authority in `directory`. Its name contains the service's issuer.
    pub fn open(directory: &Path, service: &str) -> Result<Self, AkAuthorityError> {
        let key_path = directory.join(KEY_FILE);
        if secret_file::read(&key_path)?.is_none() {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
            secret_file::write_new(&key_path, zeroize::Zeroizing::new(key.serialize_pem()).as_bytes())?;
        }
        let pem = secret_file::read(&key_path)?.ok_or(AkAuthorityError::Stored)?;
        let pem = std::str::from_utf8(&pem).map_err(|_| AkAuthorityError::Stored)?;
        let key = KeyPair::from_pem(pem).map_err(|_| AkAuthorityError::Stored)?;
        let certificate_path = directory.join(CERTIFICATE_FILE);
        if secret_file::read(&certificate_path)?.is_none() {
            let pem = authority_parameters(service).self_signed(&key)?.pem();
            secret_file::write_new(&certificate_path, pem.as_bytes())?;
        }
        let stored = secret_file::read(&certificate_path)?.ok_or(AkAuthorityError::Stored)?;
        Self::load(key, &stored)
    }

    fn load(key: KeyPair, pem: &[u8]) -> Result<Self, AkAuthorityError> {
        let stored = |_| AkAuthorityError::Stored;
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| AkAuthorityError::Stored)?;
        let certificate = Certificate::from_der(&der).map_err(stored)?;
        let tbs = certificate.tbs_certificate();
        let public = tbs.subject_public_key_info().subject_public_key.raw_bytes();
        if public != key.public_key_raw() {
            return Err(AkAuthorityError::Stored);
        }
        let (public, subject) = (public.to_vec(), tbs.subject().to_der().map_err(stored)?);
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| AkAuthorityError::Stored)?;
        Ok(Self { issuer, subject, public, der, signed: Seen::default() })
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> &[u8] {
        &self.der
    }

    /// A new certificate (DER) for the attestation key of a VM, from `now` (Unix seconds) for [`VALIDITY_DAYS`]. That
    /// the key deserves it is the caller's to know.
    pub fn certify(&self, vm_id: &str, key: &RsaPublic, now: i64) -> Result<Vec<u8>, AkAuthorityError> {
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| AkAuthorityError::Random)?;
        // Positive, and never with a zero in front (RFC 5280, section 4.1.2.2).
        serial[0] = serial[0] & 0x3F | 0x40;
        let mut subject = CertificateParams::default();
        subject.distinguished_name = rcgen::DistinguishedName::new();
        subject.distinguished_name.push(DnType::CommonName, vm_id);
        subject.serial_number = Some(SerialNumber::from_slice(&serial));
        let at = |seconds: i64| {
            let since = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            rcgen::date_time_ymd(1970, 1, 1) + since
        };
        subject.not_before = at(now - BACKDATED);
        subject.not_after = at(now + VALIDITY_DAYS * 86400);
        subject.is_ca = IsCa::ExplicitNoCa;
        subject.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        subject.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(AIK_PURPOSE.to_vec())];
        subject.use_authority_key_identifier_extension = true;
        let certificate = subject.signed_by(&AkPublic(rsa_public_key(key)), &self.issuer)?;
        Ok(certificate.der().to_vec())
    }

    /// Whether a certificate is of this authority, for this key, and valid at `now` (Unix seconds).
    pub fn vouches_for(&self, der: &[u8], key: &RsaPublic, now: i64) -> bool {
        let Ok(certificate) = Certificate::from_der(der) else { return false };
        let tbs = certificate.tbs_certificate();
        let issued_here = tbs.issuer().to_der().is_ok_and(|issuer| issuer == self.subject);
        let validity = tbs.validity();
        let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
        let now = u64::try_from(now).unwrap_or_default();
        let in_time = (seconds(&validity.not_before)..=seconds(&validity.not_after)).contains(&now);
        let of_key =
            tbs.subject_public_key_info().subject_public_key.as_bytes() == Some(&*rsa_public_key(key));
        issued_here && in_time && of_key && self.signed(der, &certificate)
    }

    fn signed(&self, der: &[u8], certificate: &Certificate) -> bool {
        if self.signed.has(der) {
            return true;
        }
        let algorithm = certificate.signature_algorithm().oid == ECDSA_WITH_SHA384;
        let (Ok(tbs), Some(signature)) =
            (certificate.tbs_certificate().to_der(), certificate.signature().as_bytes())
        else {
            return false;
        };
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, &self.public);
        let signed = algorithm && key.verify(&tbs, signature).is_ok();
        if signed {
            self.signed.add(der);
        }
        signed
    }
}

/// The name must not be that of the authority whose certificates make Azure's client wait.
fn authority_parameters(service: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, format!("Casemate vTPM CA of {service}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let year = i32::from(jiff::tz::TimeZone::UTC.to_datetime(Timestamp::now()).year());
    parameters.not_before = rcgen::date_time_ymd(year, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(year + AUTHORITY_YEARS, 1, 1);
    parameters
}

/// The subject's key, as the certificate library wants it.
struct AkPublic(Vec<u8>);

impl PublicKeyData for AkPublic {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

/// RFC 8017, appendix A.1.1, in DER.
#[derive(der::Sequence)]
struct RsaPublicKey<'a> {
    modulus: der::asn1::UintRef<'a>,
    exponent: der::asn1::UintRef<'a>,
}

pub(super) fn rsa_public_key(key: &RsaPublic) -> Vec<u8> {
    let number = |bytes| der::asn1::UintRef::new(bytes);
    let encoded = number(key.modulus())
        .and_then(|modulus| RsaPublicKey { modulus, exponent: number(key.exponent())? }.to_der());
    encoded.unwrap_or_default()
}
