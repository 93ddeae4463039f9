//! The attestation key's certificate until the attestation service has issued one: by a key that is made for this one
//! certificate and forgotten. And when a certificate must be asked for.
//!
//! It gives clients of the Azure conventions the certificate they look for at NV index 0x01C101D0. It proves nothing by
//! itself: that an attestation key is a VM's is proved by the hardware report, whose REPORT_DATA covers the key.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use vtpm::key::RsaPublic;
use x509_cert::der::Decode as _;

use super::identity::TpmError;

/// Years from the day of issue.
const VALIDITY_YEARS: i32 = 10;

/// What the names of issuers that are forgotten begin with.
const OWN_ISSUER: &str = "CN=Casemate vTPM of VM ";
/// A certificate that ends sooner is renewed; so many days before its end Azure's client asks for a new one.
const RENEWAL_DAYS: i64 = 90;

/// Whether the attestation service should be asked for a certificate instead of this one (DER): it issued none yet, or
/// the one at hand ends within 90 days.
pub fn wants_renewal(der: &[u8], now: Timestamp) -> bool {
    let Ok(certificate) = x509_cert::Certificate::from_der(der) else { return true };
    let tbs = certificate.tbs_certificate();
    let end = tbs.validity().not_after.to_unix_duration().as_secs();
    let least = u64::try_from(now.as_second() + RENEWAL_DAYS * 86400).unwrap_or_default();
    tbs.issuer().to_string().starts_with(OWN_ISSUER) || end < least
}

/// Whether a certificate (DER) is for this key.
pub fn is_for(der: &[u8], ak: &RsaPublic) -> bool {
    x509_cert::Certificate::from_der(der).is_ok_and(|certificate| {
        let key = &certificate.tbs_certificate().subject_public_key_info().subject_public_key;
        key.as_bytes() == Some(pkcs1(ak).as_slice())
    })
}

/// A new certificate (DER) of the VM's attestation key.
pub fn certify(vm_id: &str, ak: &RsaPublic, now: Timestamp) -> Result<Vec<u8>, TpmError> {
    let key = KeyPair::generate().map_err(TpmError::Certificate)?;
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name.push(DnType::CommonName, format!("Casemate vTPM of VM {vm_id}"));
    issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let issuer = Issuer::from_params(&issuer, key);
    let day = TimeZone::UTC.to_datetime(now).date();
    let (month, of_month) = (day.month().unsigned_abs(), day.day().unsigned_abs());
    let mut subject = CertificateParams::default();
    subject.distinguished_name.push(DnType::CommonName, vm_id);
    subject.serial_number = Some(SerialNumber::from(1));
    subject.not_before = rcgen::date_time_ymd(day.year().into(), month, of_month);
    subject.not_after = rcgen::date_time_ymd(i32::from(day.year()) + VALIDITY_YEARS, month, 1);
    subject.is_ca = IsCa::ExplicitNoCa;
    subject.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let certificate = subject.signed_by(&AkPublic(pkcs1(ak)), &issuer).map_err(TpmError::Certificate)?;
    Ok(certificate.der().to_vec())
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

/// `RSAPublicKey` of RFC 8017, appendix A.1.1, in DER.
fn pkcs1(key: &RsaPublic) -> Vec<u8> {
    let numbers = [integer(key.modulus()), integer(key.exponent())].concat();
    tlv(0x30, &numbers)
}

fn integer(number: &[u8]) -> Vec<u8> {
    let negative = number.first().is_some_and(|first| first & 0x80 != 0);
    let padding: &[u8] = if negative { &[0] } else { &[] };
    tlv(0x02, &[padding, number].concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut out = vec![tag];
    match significant.as_slice() {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use x509_cert::der::Encode as _;

    use super::*;

    #[test]
    fn the_certificate_names_the_vm_and_holds_the_key() {
        for first in [0x7f, 0x80] {
            let mut modulus = vec![first; 256];
            modulus[255] = 1;
            let key = RsaPublic::new(&modulus, &[1, 0, 1]);
            let now = "2026-03-31T12:00:00Z".parse().unwrap();
            let der = certify("0A1B2C3D-0000-1111-2222-333344445555", &key, now).unwrap();
            assert!(der.len() < 1024, "{} bytes must fit an index", der.len());
            let certificate = x509_cert::Certificate::from_der(&der).unwrap();
            let tbs = certificate.tbs_certificate();
            assert_eq!(tbs.subject().to_string(), "CN=0A1B2C3D-0000-1111-2222-333344445555");
            assert!(tbs.issuer().to_string().starts_with("CN=Casemate vTPM of VM"));
            let spki = tbs.subject_public_key_info();
            assert_eq!(spki.algorithm.oid.to_string(), "1.2.840.113549.1.1.1");
            let encoded = spki.subject_public_key.to_der().unwrap();
            assert!(encoded.windows(256).any(|window| window == modulus.as_slice()));
            assert!(
                tbs.validity().not_after.to_unix_duration() > tbs.validity().not_before.to_unix_duration()
            );
        }
    }

    #[test]
    fn a_certificate_of_our_own_or_near_its_end_is_renewed() {
        let now: Timestamp = "2026-03-31T12:00:00Z".parse().unwrap();
        let mut modulus = vec![0xC5; 256];
        modulus[255] = 1;
        let key = RsaPublic::new(&modulus, &[1, 0, 1]);
        let own = certify("VM", &key, now).unwrap();
        assert!(is_for(&own, &key) && !is_for(&own, &RsaPublic::new(&[0xC5; 256], &[1, 0, 1])));
        assert!(!is_for(b"nonsense", &key));
        assert!(wants_renewal(&own, now));
        assert!(wants_renewal(b"", now) && wants_renewal(b"nonsense", now));
        let parameters = CertificateParams::default();
        let issuer = Issuer::from_params(&parameters, KeyPair::generate().unwrap());
        let ending = |month: u8, day: u8| {
            let mut subject = CertificateParams::default();
            subject.not_before = rcgen::date_time_ymd(2026, 1, 1);
            subject.not_after = rcgen::date_time_ymd(2026, month, day);
            subject.signed_by(&AkPublic(pkcs1(&key)), &issuer).unwrap().der().to_vec()
        };
        assert!(wants_renewal(&ending(6, 29), now));
        assert!(!wants_renewal(&ending(6, 30), now));
    }
}
