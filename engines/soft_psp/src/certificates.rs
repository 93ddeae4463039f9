//! AMD's certificates with our names: ARK, ASK, VCEK and the revocation list (AMD 57230).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _, RSA_PSS_SHA384};
use snp::{Product, TcbVersion};

use crate::authority::AuthorityError;
use crate::der_write::{
    IA5_STRING, OCTET_STRING, SET, UTF8_STRING, bit_string, explicit, integer, oid, sequence, time, tlv,
};

const DAY: i64 = 86_400;
/// Seconds by which a verifier's clock may be behind.
const GRACE: i64 = 3_600;
/// AMD's arc: `.1` structVersion, `.2` productName, `.3.x` patch levels, `.4` hwID, `.5` cspID.
const AMD: [u64; 8] = [1, 3, 6, 1, 4, 1, 3704, 1];
const SHA384: [u64; 9] = [2, 16, 840, 1, 101, 3, 4, 2, 2];
const MGF1: [u64; 7] = [1, 2, 840, 113_549, 1, 1, 8];
const RSASSA_PSS: [u64; 7] = [1, 2, 840, 113_549, 1, 1, 10];

/// A key's place in the hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The root.
    Ark,
    /// What signs chips' keys.
    Ask,
    /// What signs providers' keys.
    Asvk,
    /// A chip's key.
    Vcek,
    /// A provider's key.
    Vlek,
}

/// Whom a leaf's key belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// A chip, by as many bytes as its product has.
    Chip(&'a [u8]),
    /// A provider, by its name.
    Provider(&'a str),
}

impl Role {
    fn common_name(self, product: Product) -> String {
        match self {
            Self::Ark => format!("ARK-{product} (Casemate development)"),
            Self::Ask => format!("SEV-{product} (Casemate development)"),
            Self::Asvk => format!("SEV-VLEK-{product} (Casemate development)"),
            Self::Vcek => "SEV-VCEK (Casemate development)".to_owned(),
            Self::Vlek => "SEV-VLEK (Casemate development)".to_owned(),
        }
    }
}

/// RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt 48, trailer 1: byte for byte as AMD's certificates have it.
fn algorithm() -> Vec<u8> {
    let sha384 = sequence(&[&oid(&SHA384), &[5, 0]]);
    let mgf1 = sequence(&[&oid(&MGF1), &sha384]);
    let parameters =
        [explicit(0, &sha384), explicit(1, &mgf1), explicit(2, &integer(48)), explicit(3, &integer(1))];
    sequence(&[&oid(&RSASSA_PSS), &tlv(0x30, &parameters.concat())])
}

fn name(common_name: &str) -> Vec<u8> {
    let attribute =
        |arcs: &[u64], text: &str| tlv(SET, &sequence(&[&oid(arcs), &tlv(UTF8_STRING, text.as_bytes())]));
    let organization = attribute(&[2, 5, 4, 10], "Casemate development, not AMD");
    tlv(0x30, &[organization, attribute(&[2, 5, 4, 3], common_name)].concat())
}

fn sign(key: &RsaKeyPair, tbs: &[u8]) -> Result<Vec<u8>, AuthorityError> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), tbs, &mut signature)
        .map_err(|_| AuthorityError::Crypto("signing a certificate"))?;
    Ok(sequence(&[tbs, &algorithm(), &bit_string(&signature)]))
}

/// What a certificate is made of.
struct Certificate<'a> {
    product: Product,
    subject: Role,
    issuer: Role,
    spki: &'a [u8],
    serial: u64,
    not_before: i64,
    days: i64,
    extensions: Vec<u8>,
}

impl Certificate<'_> {
    fn sign(&self, signer: &RsaKeyPair) -> Result<Vec<u8>, AuthorityError> {
        let validity = sequence(&[&time(self.not_before), &time(self.not_before + self.days * DAY)]);
        let tbs = sequence(&[
            &explicit(0, &integer(2)),
            &integer(self.serial),
            &algorithm(),
            &name(&self.issuer.common_name(self.product)),
            &validity,
            &name(&self.subject.common_name(self.product)),
            self.spki,
            &explicit(3, &tlv(0x30, &self.extensions)),
        ]);
        sign(signer, &tbs)
    }
}

fn extension(arcs: &[u64], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xFF] } else { &[] };
    sequence(&[&oid(arcs), critical, &tlv(OCTET_STRING, value)])
}

/// Basic constraints: an authority; key usage: certificates and lists.
fn authority_extensions() -> Vec<u8> {
    let constraints = sequence(&[&[1, 1, 0xFF]]);
    let usage = tlv(0x03, &[1, 0b0000_0110]);
    [extension(&[2, 5, 29, 19], true, &constraints), extension(&[2, 5, 29, 15], true, &usage)].concat()
}

fn spki(key: &RsaKeyPair) -> Result<Vec<u8>, AuthorityError> {
    let der =
        aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(key.public_key());
    der.map(|der| der.as_ref().to_vec()).map_err(|_| AuthorityError::Crypto("encoding a public key"))
}

/// The root, signed by itself: 25 years.
pub fn ark(product: Product, key: &RsaKeyPair, not_before: i64) -> Result<Vec<u8>, AuthorityError> {
    let certificate = Certificate {
        product,
        subject: Role::Ark,
        issuer: Role::Ark,
        spki: &spki(key)?,
        serial: 0x1_0000,
        not_before,
        days: 25 * 365,
        extensions: authority_extensions(),
    };
    certificate.sign(key)
}

/// An intermediate, ASK or ASVK, signed by the root.
pub fn intermediate(
    product: Product,
    subject: Role,
    key: &RsaKeyPair,
    signer: &RsaKeyPair,
    not_before: i64,
) -> Result<Vec<u8>, AuthorityError> {
    let certificate = Certificate {
        product,
        subject,
        issuer: Role::Ark,
        spki: &spki(key)?,
        serial: if subject == Role::Asvk { 0x1_0101 } else { 0x1_0001 },
        not_before,
        days: 25 * 365,
        extensions: authority_extensions(),
    };
    certificate.sign(signer)
}

/// A chip's certificate for one TCB, seven years; a provider's, one.
pub fn leaf(
    product: Product,
    key: &EcdsaKeyPair,
    signer: &RsaKeyPair,
    not_before: i64,
    owner: Owner<'_>,
    tcb: TcbVersion,
) -> Result<Vec<u8>, AuthorityError> {
    let (subject, issuer, years) = match owner {
        Owner::Chip(_) => (Role::Vcek, Role::Ask, 7),
        Owner::Provider(_) => (Role::Vlek, Role::Asvk, 1),
    };
    let spki =
        aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(key.public_key())
            .map_err(|_| AuthorityError::Crypto("encoding a public key"))?;
    let certificate = Certificate {
        product,
        subject,
        issuer,
        spki: spki.as_ref(),
        serial: 0,
        not_before,
        days: years * 365,
        extensions: leaf_extensions(product, owner, tcb),
    };
    certificate.sign(signer)
}

fn amd(arcs: &[u64]) -> Vec<u64> {
    [&AMD, arcs].concat()
}

fn leaf_extensions(product: Product, owner: Owner<'_>, tcb: TcbVersion) -> Vec<u8> {
    let name = format!("{product}-B0");
    let [r0, r1, r2, r3] = tcb.reserved;
    let turin = product == Product::Turin;
    let mut levels = vec![(1, tcb.boot_loader), (2, tcb.tee), (3, tcb.snp)];
    if !turin {
        levels.push((4, r0));
    }
    levels.extend([(5, r1), (6, r2), (7, r3), (8, tcb.microcode)]);
    if let Some(fmc) = tcb.fmc {
        levels.push((9, fmc));
    }
    let mut extensions = extension(&amd(&[1]), false, &integer(u64::from(turin)));
    extensions.extend(extension(&amd(&[2]), false, &tlv(IA5_STRING, name.as_bytes())));
    for (number, level) in levels {
        extensions.extend(extension(&amd(&[3, number]), false, &integer(u64::from(level))));
    }
    extensions.extend(match owner {
        Owner::Chip(id) => extension(&amd(&[4]), false, &tlv(OCTET_STRING, id)),
        Owner::Provider(name) => extension(&amd(&[5]), false, &tlv(IA5_STRING, name.as_bytes())),
    });
    extensions
}

/// An empty revocation list, good for 30 days from `now` (RFC 5280 section 5).
pub fn crl(product: Product, signer: &RsaKeyPair, now: i64) -> Result<Vec<u8>, AuthorityError> {
    let number = u64::try_from(now).unwrap_or_default();
    let crl_number = extension(&[2, 5, 29, 20], false, &integer(number));
    let tbs = sequence(&[
        &integer(1),
        &algorithm(),
        &name(&Role::Ark.common_name(product)),
        &time(now - GRACE),
        &time(now + 30 * DAY),
        &explicit(0, &tlv(0x30, &crl_number)),
    ]);
    sign(signer, &tbs)
}
