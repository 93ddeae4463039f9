//! What kind of key a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) holds: one of the three that sign policies and
//! documents.

use der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// Kinds of keys that sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA; the key is an RSAPublicKey (RFC 8017 A.1.1).
    Rsa,
    /// P-256; the key is an uncompressed point.
    P256,
    /// P-384; the key is an uncompressed point.
    P384,
}

/// Kind and bits of a key; none for other kinds.
pub fn signing_key(info: &SubjectPublicKeyInfoOwned) -> Option<(KeyKind, &[u8])> {
    let curve = info.algorithm.parameters.as_ref();
    let curve = curve.and_then(|any| Some(any.decode_as::<ObjectIdentifier>().ok()?.to_string()));
    let kind = match (info.algorithm.oid.to_string().as_str(), curve.as_deref()) {
        ("1.2.840.113549.1.1.1", _) => KeyKind::Rsa,
        ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => KeyKind::P256,
        ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => KeyKind::P384,
        _ => return None,
    };
    Some((kind, info.subject_public_key.as_bytes()?))
}
