//! One X.509 certificate of AMD's kind: RSASSA-PSS with SHA-384 above, an RSA-4096 or a P-384 key inside.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use der::asn1::{AnyRef, Null, PrintableStringRef, UintRef, Utf8StringRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use x509_cert::certificate::Version;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::UnixTime;
use crate::bytes::array;
use crate::ecdsa::Point;
use crate::error::{CertificateRole, VerifyError};
use crate::roots::RootId;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");

/// RSASSA-PSS-params: SHA-384, MGF1 with SHA-384, salt of 48 bytes (RFC 4055 section 3.1).
const PSS_SHA384: [u8; 52] = [
    0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00,
    0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0d,
    0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa2, 0x03, 0x02, 0x01,
    0x30,
];
/// The default trailer field, which AMD's roots write although DER would leave it out.
const TRAILER: [u8; 5] = [0xa3, 0x03, 0x02, 0x01, 0x01];
/// Bytes of an RSA-4096 modulus.
const MODULUS: usize = 512;

/// A parsed certificate with the bytes it came from.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Reads DER; nothing may stand behind it.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, der::Error> {
        let parsed = x509_cert::Certificate::from_der(der)?;
        let tbs = parsed.tbs_certificate();
        [tbs.issuer(), tbs.subject()].into_iter().try_for_each(check_name)?;
        let extensions = tbs.extensions().map_or(&[][..], Vec::as_slice);
        extensions.iter().try_for_each(|extension| check_oid(&extension.extn_id))?;
        Ok(Self { der: der.to_vec(), parsed })
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn id(&self) -> RootId {
        RootId(array(digest(&SHA256, &self.der).as_ref(), 0).unwrap_or_default())
    }

    pub(crate) fn subject(&self) -> &Name {
        self.parsed.tbs_certificate().subject()
    }

    pub(crate) fn issuer(&self) -> &Name {
        self.parsed.tbs_certificate().issuer()
    }

    pub(crate) fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate().serial_number().as_bytes()
    }

    pub(crate) fn extensions(&self) -> &[x509_cert::ext::Extension] {
        self.parsed.tbs_certificate().extensions().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn validity(&self, role: CertificateRole) -> Validity {
        let validity = self.parsed.tbs_certificate().validity();
        Validity { role, not_before: unix(&validity.not_before), not_after: unix(&validity.not_after) }
    }

    /// Refuses another version, critical extensions that nobody here understands, an issuer that is none, and a leaf
    /// that is one.
    pub(crate) fn check_extensions(&self, role: CertificateRole) -> Result<(), VerifyError> {
        if self.parsed.tbs_certificate().version() != Version::V3 {
            return Err(VerifyError::CertificateVersion { role });
        }
        let known = [KEY_USAGE, BASIC_CONSTRAINTS];
        let unknown = self.extensions().iter().find(|e| e.critical && !known.contains(&e.extn_id));
        if let Some(extension) = unknown {
            return Err(VerifyError::CriticalExtension { role, oid: extension.extn_id.to_string() });
        }
        let constraints = self.parsed.tbs_certificate().get_extension::<BasicConstraints>();
        let is_ca = matches!(constraints, Ok(Some((_, BasicConstraints { ca: true, .. }))));
        match (role, is_ca) {
            (CertificateRole::Leaf, true) => Err(VerifyError::LeafIssues),
            (CertificateRole::Leaf, false) => Ok(()),
            (_, true) => self.check_key_usage(role),
            (_, false) => Err(VerifyError::NotAnIssuer { role }),
        }
    }

    /// RFC 5280 section 4.2.1.3: who issues certificates has a key for signing them.
    fn check_key_usage(&self, role: CertificateRole) -> Result<(), VerifyError> {
        match self.parsed.tbs_certificate().get_extension::<KeyUsage>() {
            Ok(Some((_, usage))) if usage.key_cert_sign() => Ok(()),
            _ => Err(VerifyError::KeyUsage { role }),
        }
    }

    /// The common name of the subject, when it has exactly one that is text.
    pub(crate) fn common_name(&self) -> Option<String> {
        common_name(self.subject())
    }

    /// The same of the issuer.
    pub(crate) fn issuer_common_name(&self) -> Option<String> {
        common_name(self.issuer())
    }

    /// Checks that `issuer` issued this certificate: names, algorithm, signature over the raw bytes.
    pub(crate) fn check_issued_by(&self, issuer: &Self, role: CertificateRole) -> Result<(), VerifyError> {
        if self.issuer() != issuer.subject() {
            return Err(VerifyError::Issuer {
                role,
                expected: issuer.subject().to_string(),
                actual: self.issuer().to_string(),
            });
        }
        let tbs = self.parsed.tbs_certificate();
        if self.parsed.signature_algorithm() != tbs.signature() {
            return Err(VerifyError::AlgorithmsDiffer { role });
        }
        if !is_pss_sha384(tbs.signature()) {
            let actual = self.parsed.signature_algorithm().oid.to_string();
            return Err(VerifyError::CertificateAlgorithm { role, actual });
        }
        let key = issuer.rsa_key().ok_or(VerifyError::IssuerKey { role })?;
        let signature = self.parsed.signature().as_bytes();
        let (Some(signed), Some(signature)) = (signed_part(&self.der), signature) else {
            return Err(VerifyError::CertificateSignature { role });
        };
        let valid = rsa_verify(key, signed, signature);
        if valid { Ok(()) } else { Err(VerifyError::CertificateSignature { role }) }
    }

    /// The RSA-4096 key, as PKCS#1; nothing for another kind or size, or with parameters (RFC 3279 section 2.3.1).
    pub(crate) fn rsa_key(&self) -> Option<&[u8]> {
        let spki = self.parsed.tbs_certificate().subject_public_key_info();
        spki.algorithm.parameters.as_ref()?.decode_as::<Null>().ok()?;
        let bytes = spki.subject_public_key.as_bytes()?;
        let parts = AnyRef::from_der(bytes).ok()?;
        let modulus = UintRef::decode(&mut SliceReader::new(parts.value()).ok()?).ok()?;
        (spki.algorithm.oid == RSA && modulus.as_bytes().len() == MODULUS).then_some(bytes)
    }

    /// The P-384 key; nothing for another kind.
    pub(crate) fn p384_key(&self) -> Option<Point> {
        let spki = self.parsed.tbs_certificate().subject_public_key_info();
        let curve = spki.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
        let point: Point = spki.subject_public_key.as_bytes()?.try_into().ok()?;
        (spki.algorithm.oid == EC && curve == P384 && point.first() == Some(&4)).then_some(point)
    }
}

/// The parser leaves the values of a name unread. Text is UTF-8 or printable ASCII (RFC 5280 section 4.1.2.4); AMD uses
/// no other kind.
fn check_name(name: &Name) -> Result<(), der::Error> {
    name.iter().try_for_each(|part| {
        check_oid(&part.oid)?;
        match part.value.tag() {
            Tag::Utf8String => part.value.decode_as::<Utf8StringRef<'_>>().map(drop),
            Tag::PrintableString => part.value.decode_as::<PrintableStringRef<'_>>().map(drop),
            tag => Err(tag.value_error().into()),
        }
    })
}

/// No number of it begins with a zero (X.690 section 8.19.2), which the parser takes.
fn check_oid(oid: &ObjectIdentifier) -> Result<(), der::Error> {
    let mut begins = true;
    for byte in oid.as_bytes() {
        if begins && *byte == 0x80 {
            return Err(Tag::ObjectIdentifier.value_error().into());
        }
        begins = byte & 0x80 == 0;
    }
    Ok(())
}

fn common_name(name: &Name) -> Option<String> {
    name.common_name().ok().flatten().map(|name| name.value().into_owned())
}

/// When a certificate is valid, both ends included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    role: CertificateRole,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl Validity {
    pub(crate) fn check(self, now: UnixTime) -> Result<(), VerifyError> {
        let Self { role, not_before, not_after } = self;
        if now < not_before {
            return Err(VerifyError::NotYetValid { role, not_before, now });
        }
        if now > not_after {
            return Err(VerifyError::Expired { role, not_after, now });
        }
        Ok(())
    }
}

/// Seconds of a certificate's time.
pub(crate) fn unix(time: &x509_cert::time::Time) -> UnixTime {
    UnixTime(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

/// Whether an algorithm identifier is exactly the one that AMD signs certificates with.
pub(crate) fn is_pss_sha384(algorithm: &AlgorithmIdentifierOwned) -> bool {
    let Some(parameters) = &algorithm.parameters else {
        return false;
    };
    let body = parameters.value();
    let body = body.strip_suffix(TRAILER.as_slice()).unwrap_or(body);
    algorithm.oid == RSASSA_PSS && parameters.tag() == der::Tag::Sequence && body == PSS_SHA384
}

/// RSASSA-PSS, SHA-384, salt as long as the digest.
pub(crate) fn rsa_verify(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key).verify(message, signature).is_ok()
}

/// The first element of a signed structure (certificate or list), as its raw bytes.
pub(crate) fn signed_part(der: &[u8]) -> Option<&[u8]> {
    let outer = AnyRef::from_der(der).ok()?;
    SliceReader::new(outer.value()).ok()?.tlv_bytes().ok()
}
