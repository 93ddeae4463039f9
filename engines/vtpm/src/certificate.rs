//! Just enough DER, X.509 and PKCS #7 to say which certificate of the firmware's or shim's lists authorised an image:
//! the Authenticode signature of a PE file, checked up to that certificate. No dates, no revocation, no key usage: the
//! firmware looks at none of them either (EDK2, `AuthenticodeVerify`).

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters,
    UnparsedPublicKey,
};

use crate::pcr::{Digest, sha256};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const CONTEXT_0: u8 = 0xA0;

const OID_SIGNED_DATA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x02];
const OID_INDIRECT_DATA: &[u8] = &[0x2B, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x04];
const OID_SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const OID_MESSAGE_DIGEST: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x04];
/// `rsaEncryption` up to the last arc; the last byte names the scheme.
const OID_PKCS1: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];

#[derive(Clone, Copy)]
struct Tlv<'a> {
    tag: u8,
    value: &'a [u8],
    whole: &'a [u8],
}

/// A walk over the elements of a DER value.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn next(&mut self) -> Option<Tlv<'a>> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7F => (usize::from(*first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
                (bytes.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        let whole = self.0.get(..self.0.len() - rest.len())?;
        self.0 = rest;
        Some(Tlv { tag: *tag, value, whole })
    }

    fn expect(&mut self, tag: u8) -> Option<Tlv<'a>> {
        self.next().filter(|tlv| tlv.tag == tag)
    }

    fn enter(&mut self, tag: u8) -> Option<Der<'a>> {
        self.expect(tag).map(|tlv| Der(tlv.value))
    }

    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }
}

/// The parts of an X.509 certificate that a chain is made of.
#[derive(Clone, Copy)]
struct Certificate<'a> {
    der: &'a [u8],
    tbs: &'a [u8],
    serial: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    rsa_key: Option<&'a [u8]>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    fn parse(der: &'a [u8]) -> Option<Self> {
        let outer = Der(der).expect(SEQUENCE)?;
        let mut certificate = Der(outer.value);
        let tbs = certificate.expect(SEQUENCE)?;
        let algorithm = certificate.enter(SEQUENCE)?.expect(OID)?.value;
        let signature = bits(certificate.expect(BIT_STRING)?)?;
        let mut fields = Der(tbs.value);
        if fields.peek() == Some(CONTEXT_0) {
            fields.next()?;
        }
        let serial = fields.expect(INTEGER)?.value;
        fields.expect(SEQUENCE)?;
        let issuer = fields.expect(SEQUENCE)?.whole;
        fields.expect(SEQUENCE)?;
        let subject = fields.expect(SEQUENCE)?.whole;
        let mut key = fields.enter(SEQUENCE)?;
        let kind = key.enter(SEQUENCE)?.expect(OID)?.value;
        let rsa_key = match kind.split_last() {
            Some((1, OID_PKCS1)) => Some(bits(key.expect(BIT_STRING)?)?),
            _ => None,
        };
        Some(Self {
            der: outer.whole,
            tbs: tbs.whole,
            serial,
            issuer,
            subject,
            rsa_key,
            algorithm,
            signature,
        })
    }

    /// Whether `issuer` signed this certificate.
    fn is_signed_by(&self, issuer: &Certificate<'_>) -> bool {
        self.issuer == issuer.subject
            && scheme(self.algorithm).is_some_and(|scheme| issuer.verify(scheme, self.tbs, self.signature))
    }

    fn verify(&self, scheme: &'static RsaParameters, message: &[u8], signature: &[u8]) -> bool {
        self.rsa_key.is_some_and(|key| UnparsedPublicKey::new(scheme, key).verify(message, signature).is_ok())
    }
}

/// The content of a BIT STRING of whole bytes.
fn bits(tlv: Tlv<'_>) -> Option<&[u8]> {
    tlv.value.strip_prefix(&[0])
}

fn scheme(algorithm: &[u8]) -> Option<&'static RsaParameters> {
    match algorithm.split_last()? {
        (11, OID_PKCS1) => Some(&RSA_PKCS1_2048_8192_SHA256),
        (12, OID_PKCS1) => Some(&RSA_PKCS1_2048_8192_SHA384),
        (13, OID_PKCS1) => Some(&RSA_PKCS1_2048_8192_SHA512),
        _ => None,
    }
}

/// One Authenticode signature: PKCS #7 SignedData over the digest of a PE image.
pub(crate) struct Signature<'a> {
    content: &'a [u8],
    image_digest: &'a [u8],
    certificates: Vec<Certificate<'a>>,
    signer_issuer: &'a [u8],
    signer_serial: &'a [u8],
    signed_attributes: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signature<'a> {
    /// Parses the `WIN_CERT_TYPE_PKCS_SIGNED_DATA` content of a PE file's certificate table. `None` for anything but a
    /// SHA-256 Authenticode signature with signed attributes.
    pub fn parse(pkcs7: &'a [u8]) -> Option<Self> {
        let mut outer = Der(pkcs7).enter(SEQUENCE)?;
        (outer.expect(OID)?.value == OID_SIGNED_DATA).then_some(())?;
        let mut data = outer.enter(CONTEXT_0)?.enter(SEQUENCE)?;
        data.expect(INTEGER)?;
        data.expect(SET)?;
        let mut content_info = data.enter(SEQUENCE)?;
        (content_info.expect(OID)?.value == OID_INDIRECT_DATA).then_some(())?;
        let content = content_info.enter(CONTEXT_0)?.expect(SEQUENCE)?.value;
        let image_digest = indirect_digest(content)?;
        let mut certificates = Vec::new();
        if data.peek() == Some(CONTEXT_0) {
            let mut list = data.enter(CONTEXT_0)?;
            while let Some(certificate) = list.next() {
                certificates.extend(Certificate::parse(certificate.whole));
            }
        }
        if data.peek() == Some(0xA1) {
            data.next()?;
        }
        let mut signer = data.enter(SET)?.enter(SEQUENCE)?;
        signer.expect(INTEGER)?;
        let mut id = signer.enter(SEQUENCE)?;
        let (signer_issuer, signer_serial) = (id.expect(SEQUENCE)?.whole, id.expect(INTEGER)?.value);
        (signer.enter(SEQUENCE)?.expect(OID)?.value == OID_SHA256).then_some(())?;
        let signed_attributes = signer.expect(CONTEXT_0)?.whole;
        signer.expect(SEQUENCE)?;
        let signature = signer.expect(OCTET_STRING)?.value;
        Some(Self {
            content,
            image_digest,
            certificates,
            signer_issuer,
            signer_serial,
            signed_attributes,
            signature,
        })
    }

    /// Whether this signature covers an image of that Authenticode digest and leads to `anchor` (a certificate in DER).
    pub fn verifies(&self, image: &Digest, anchor: &[u8]) -> bool {
        self.check(image, anchor).is_some()
    }

    fn check(&self, image: &Digest, anchor: &[u8]) -> Option<()> {
        (self.image_digest == image && self.attribute_digest()? == sha256(self.content)).then_some(())?;
        let anchor = Certificate::parse(anchor)?;
        let signer = self.certificates.iter().find(|certificate| {
            certificate.issuer == self.signer_issuer && certificate.serial == self.signer_serial
        })?;
        let (_, value) = self.signed_attributes.split_first()?;
        let message = [&[SET][..], value].concat();
        signer.verify(&RSA_PKCS1_2048_8192_SHA256, &message, self.signature).then_some(())?;
        self.leads_to(*signer, &anchor).then_some(())
    }

    /// The messageDigest attribute.
    fn attribute_digest(&self) -> Option<&'a [u8]> {
        let mut attributes = Der(self.signed_attributes).enter(CONTEXT_0)?;
        while let Some(attribute) = attributes.next() {
            let mut attribute = Der(attribute.value);
            if attribute.expect(OID)?.value == OID_MESSAGE_DIGEST {
                return attribute.enter(SET)?.expect(OCTET_STRING).map(|digest| digest.value);
            }
        }
        None
    }

    fn leads_to(&self, signer: Certificate<'a>, anchor: &Certificate<'_>) -> bool {
        let mut current = signer;
        for _ in 0..8 {
            if current.der == anchor.der || current.is_signed_by(anchor) {
                return true;
            }
            let above = self
                .certificates
                .iter()
                .find(|candidate| candidate.der != current.der && current.is_signed_by(candidate));
            match above {
                Some(issuer) => current = *issuer,
                None => return false,
            }
        }
        false
    }
}

/// The digest in a SpcIndirectDataContent, when it is SHA-256.
fn indirect_digest(content: &[u8]) -> Option<&[u8]> {
    let mut content = Der(content);
    content.expect(SEQUENCE)?;
    let mut info = content.enter(SEQUENCE)?;
    (info.enter(SEQUENCE)?.expect(OID)?.value == OID_SHA256).then_some(())?;
    Some(info.expect(OCTET_STRING)?.value)
}

/// The subject of a certificate as text for messages: its printable runs. Empty for what is no certificate.
pub(crate) fn common_name(der: &[u8]) -> String {
    const OID_COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let find = || {
        let mut names = Der(Certificate::parse(der)?.subject).enter(SEQUENCE)?;
        while let Some(set) = names.next() {
            let mut attribute = Der(set.value).enter(SEQUENCE)?;
            if attribute.expect(OID)?.value == OID_COMMON_NAME {
                return Some(String::from_utf8_lossy(attribute.next()?.value).into_owned());
            }
        }
        None
    };
    find().unwrap_or_default()
}
