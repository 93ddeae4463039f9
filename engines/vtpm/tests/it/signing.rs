//! A small certificate authority and Authenticode signer: DER by hand, RSA-2048.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use vtpm::pcr::sha256;

const SHA256_RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B];
const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const SIGNED_DATA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x02];
const INDIRECT_DATA: &[u8] = &[0x2B, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x04];
const PE_IMAGE_DATA: &[u8] = &[0x2B, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0F];
const CONTENT_TYPE: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x03];
const MESSAGE_DIGEST: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x04];

/// An authority, and a signer that it certified.
pub struct Authority {
    pub certificate: Vec<u8>,
    signer: Vec<u8>,
    issuer: Vec<u8>,
    key: RsaKeyPair,
}

/// Stands for Microsoft's authority in `db`.
pub static PLATFORM: LazyLock<Authority> = LazyLock::new(|| Authority::new("Platform CA"));
/// Stands for the distribution's authority in shim.
pub static VENDOR: LazyLock<Authority> = LazyLock::new(|| Authority::new("Vendor CA"));
/// Nobody trusts it.
pub static STRANGER: LazyLock<Authority> = LazyLock::new(|| Authority::new("Platform CA"));

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = u16::try_from(value.len()).unwrap();
    let [high, low] = length.to_be_bytes();
    let mut out = match length {
        0..=0x7F => vec![tag, low],
        _ => vec![tag, 0x82, high, low],
    };
    out.extend_from_slice(&value);
    out
}

fn oid(value: &[u8]) -> Vec<u8> {
    tlv(0x06, &[value])
}

fn algorithm(value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&oid(value), &[5, 0]])
}

fn name(common: &str) -> Vec<u8> {
    let attribute = tlv(0x30, &[&oid(&[0x55, 0x04, 0x03]), &tlv(0x0C, &[common.as_bytes()])]);
    tlv(0x30, &[&tlv(0x31, &[&attribute])])
}

fn sign(key: &RsaKeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn certificate(
    serial: u8,
    issuer: &str,
    subject: &str,
    subject_key: &RsaKeyPair,
    issuer_key: &RsaKeyPair,
) -> Vec<u8> {
    let validity = tlv(0x30, &[&tlv(0x17, &[b"200101000000Z"]), &tlv(0x17, &[b"400101000000Z"])]);
    let key = tlv(0x30, &[&algorithm(RSA), &tlv(0x03, &[&[0], subject_key.public_key().as_ref()])]);
    let version = tlv(0xA0, &[&[2, 1, 2]]);
    let tbs = tlv(
        0x30,
        &[&version, &[2, 1, serial], &algorithm(SHA256_RSA), &name(issuer), &validity, &name(subject), &key],
    );
    let signature = sign(issuer_key, &tbs);
    tlv(0x30, &[&tbs, &algorithm(SHA256_RSA), &tlv(0x03, &[&[0], &signature])])
}

impl Authority {
    fn new(common_name: &str) -> Self {
        let authority = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self {
            certificate: certificate(1, common_name, common_name, &authority, &authority),
            signer: certificate(2, common_name, "Signer", &key, &authority),
            issuer: name(common_name),
            key,
        }
    }

    /// Appends an Authenticode signature to an unsigned image (or a second one to a signed image).
    pub fn sign(&self, pe: &[u8]) -> Vec<u8> {
        super::image::append_signature(pe, &self.pkcs7(&vtpm::authenticode::sha256(pe).unwrap()))
    }

    fn pkcs7(&self, image_digest: &[u8; 32]) -> Vec<u8> {
        let info = tlv(0x30, &[&algorithm(SHA256), &tlv(0x04, &[image_digest])]);
        let content = [tlv(0x30, &[&oid(PE_IMAGE_DATA)]), info].concat();
        let attribute = |kind: &[u8], value: &[u8]| tlv(0x30, &[&oid(kind), &tlv(0x31, &[value])]);
        let attributes = [
            attribute(CONTENT_TYPE, &oid(INDIRECT_DATA)),
            attribute(MESSAGE_DIGEST, &tlv(0x04, &[&sha256(&content)])),
        ]
        .concat();
        let signature = sign(&self.key, &tlv(0x31, &[&attributes]));
        let signer = tlv(
            0x30,
            &[
                &[2, 1, 1],
                &tlv(0x30, &[&self.issuer, &[2, 1, 2]]),
                &algorithm(SHA256),
                &tlv(0xA0, &[&attributes]),
                &algorithm(RSA),
                &tlv(0x04, &[&signature]),
            ],
        );
        let content = tlv(0x30, &[&oid(INDIRECT_DATA), &tlv(0xA0, &[&tlv(0x30, &[&content])])]);
        let data = tlv(
            0x30,
            &[
                &[2, 1, 1],
                &tlv(0x31, &[&algorithm(SHA256)]),
                &content,
                &tlv(0xA0, &[&self.signer]),
                &tlv(0x31, &[&signer]),
            ],
        );
        tlv(0x30, &[&oid(SIGNED_DATA), &tlv(0xA0, &[&data])])
    }
}
