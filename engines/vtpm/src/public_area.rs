//! Public areas of RSA keys in a TPM (TPM 2.0 library, part 2, TPMT_PUBLIC), with what the key may do: whether it is an
//! attestation key as the platform makes it, and whether it is sealed to PCRs.

use thiserror::Error;

use crate::bytes::Cursor;
use crate::command::{alg, pcr_selection};
use crate::key::RsaPublic;
use crate::pcr::{Digest, PcrBank, sha256};

/// Object attributes (TPMA_OBJECT).
pub mod attribute {
    #![allow(missing_docs, reason = "the constants bear the specification's names")]
    pub const FIXED_TPM: u32 = 1 << 1;
    pub const FIXED_PARENT: u32 = 1 << 4;
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    pub const NO_DA: u32 = 1 << 10;
    pub const RESTRICTED: u32 = 1 << 16;
    pub const DECRYPT: u32 = 1 << 17;
    pub const SIGN: u32 = 1 << 18;

    /// Made inside this TPM, and never to leave it.
    const OF_THIS_TPM: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN;
    /// The attestation key: signs only what the TPM itself says.
    pub const ATTESTATION_KEY: u32 = OF_THIS_TPM | USER_WITH_AUTH | NO_DA | RESTRICTED | SIGN;
    /// A key that decrypts, and only under its policy: no authorisation value opens it.
    pub const SEALED_DECRYPTION_KEY: u32 = OF_THIS_TPM | NO_DA | DECRYPT;
}

/// TPM_CC_PolicyPCR.
const CODE_POLICY_PCR: u32 = 0x17F;

/// Why bytes are no public area of an RSA key.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AreaError {
    /// The bytes end inside the named field.
    #[error("the public area is truncated in its {0}")]
    Truncated(&'static str),
    /// Bytes follow.
    #[error("the public area has bytes behind it")]
    Trailing,
    /// Not an RSA key, or its name is not made with SHA-256.
    #[error("the public area's {field} is {value:#06x}")]
    Algorithm {
        /// The field.
        field: &'static str,
        /// TPM_ALG_ID.
        value: u16,
    },
    /// The modulus has another size than the key is said to have.
    #[error("the public area says {stated} bits, its modulus has {actual} bytes")]
    ModulusSize {
        /// As stated.
        stated: u16,
        /// Bytes there.
        actual: usize,
    },
}

/// A property that a key should have and does not have.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the key's {property} is {actual}, expected {expected}")]
pub struct AreaMismatch {
    /// The property.
    pub property: &'static str,
    /// As it should be.
    pub expected: String,
    /// As it is.
    pub actual: String,
}

/// The public area of an RSA key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RsaArea {
    /// TPMA_OBJECT.
    pub attributes: u32,
    /// The policy that authorises the key's use; empty without one.
    pub auth_policy: Vec<u8>,
    /// Symmetric algorithm for children; [`alg::NULL`] for keys without.
    pub symmetric: u16,
    /// Scheme, and its hash where it has one.
    pub scheme: (u16, Option<u16>),
    /// Size of the modulus.
    pub bits: u16,
    /// The key.
    pub key: RsaPublic,
    /// The object's name: name algorithm and digest of the area.
    pub name: Vec<u8>,
}

impl RsaArea {
    /// Parses a TPM2B_PUBLIC.
    ///
    /// # Errors
    /// [`AreaError`].
    pub fn parse(tpm2b_public: &[u8]) -> Result<Self, AreaError> {
        let mut outer = Cursor::new(tpm2b_public);
        let area = outer.tpm2b().ok_or(AreaError::Truncated("size"))?;
        if !outer.is_empty() {
            return Err(AreaError::Trailing);
        }
        let mut cursor = Cursor::new(area);
        require_algorithm("type", cursor.be16(), alg::RSA)?;
        require_algorithm("name algorithm", cursor.be16(), alg::SHA256)?;
        let attributes = field(cursor.be32(), "attributes")?;
        let auth_policy = field(cursor.tpm2b(), "policy")?.to_vec();
        let symmetric = field(cursor.be16(), "symmetric algorithm")?;
        if symmetric != alg::NULL {
            field(cursor.be32(), "symmetric parameters")?;
        }
        let scheme = scheme(&mut cursor)?;
        let bits = field(cursor.be16(), "key size")?;
        let key = rsa(&mut cursor, bits)?;
        if !cursor.is_empty() {
            return Err(AreaError::Trailing);
        }
        let name = [&alg::SHA256.to_be_bytes()[..], &sha256(area)].concat();
        Ok(Self { attributes, auth_policy, symmetric, scheme, bits, key, name })
    }

    /// Checks that this is an attestation key as the platform makes it ([`crate::command::template::AK`]): made in the
    /// TPM, not to leave it, restricted to sign what the TPM itself says, RSASSA with SHA-256, 2048 bits, no policy.
    ///
    /// # Errors
    /// [`AreaMismatch`] with the first property that differs.
    pub fn check_attestation_key(&self) -> Result<(), AreaMismatch> {
        self.check_attributes(attribute::ATTESTATION_KEY)?;
        self.check_size()?;
        same("policy", "", &hex::encode(&self.auth_policy))?;
        let shown = |scheme: (u16, Option<u16>)| match scheme {
            (scheme, Some(hash)) => format!("{scheme:#06x} with hash {hash:#06x}"),
            (scheme, None) => format!("{scheme:#06x}"),
        };
        same("scheme", &shown((alg::RSASSA, Some(alg::SHA256))), &shown(self.scheme))
    }

    /// Checks that this key decrypts, was made in the TPM and does not leave it, and can be used only while the PCRs
    /// have the values of the bank: the clients of Azure's guest attestation make such a key for each request.
    ///
    /// # Errors
    /// [`AreaMismatch`] with the first property that differs.
    pub fn check_sealed_to(&self, pcrs: &PcrBank) -> Result<(), AreaMismatch> {
        self.check_attributes(attribute::SEALED_DECRYPTION_KEY)?;
        self.check_size()?;
        same("scheme", &format!("{:#06x}", alg::NULL), &format!("{:#06x}", self.scheme.0))?;
        same("policy", &hex::encode(policy_pcr(pcrs)), &hex::encode(&self.auth_policy))
    }

    fn check_attributes(&self, expected: u32) -> Result<(), AreaMismatch> {
        same("attributes", &format!("{expected:#010x}"), &format!("{:#010x}", self.attributes))
    }

    fn check_size(&self) -> Result<(), AreaMismatch> {
        same("size", "2048 bits", &format!("{} bits", self.bits))?;
        same("exponent", "010001", &hex::encode(self.key.exponent()))?;
        same("symmetric algorithm", &format!("{:#06x}", alg::NULL), &format!("{:#06x}", self.symmetric))
    }
}

/// The policy digest that `TPM2_PolicyPCR` alone leads to, for PCRs of the SHA-256 bank (part 3, section 23.7).
pub fn policy_pcr(pcrs: &PcrBank) -> Digest {
    let selected: Vec<u8> = pcrs.0.keys().copied().collect();
    let digest = pcrs.digest_of(&selected).unwrap_or_default();
    let parts: [&[u8]; 4] = [&[0; 32], &CODE_POLICY_PCR.to_be_bytes(), &pcr_selection(&selected), &digest];
    sha256(&parts.concat())
}

fn same(property: &'static str, expected: &str, actual: &str) -> Result<(), AreaMismatch> {
    if expected == actual {
        return Ok(());
    }
    let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    Err(AreaMismatch { property, expected: shown(expected), actual: shown(actual) })
}

fn field<T>(value: Option<T>, name: &'static str) -> Result<T, AreaError> {
    value.ok_or(AreaError::Truncated(name))
}

fn require_algorithm(name: &'static str, value: Option<u16>, expected: u16) -> Result<(), AreaError> {
    let value = field(value, name)?;
    if value == expected { Ok(()) } else { Err(AreaError::Algorithm { field: name, value }) }
}

fn scheme(cursor: &mut Cursor<'_>) -> Result<(u16, Option<u16>), AreaError> {
    let scheme = field(cursor.be16(), "scheme")?;
    let hash = match scheme {
        alg::NULL | alg::RSAES => None,
        _ => Some(field(cursor.be16(), "scheme hash")?),
    };
    Ok((scheme, hash))
}

fn rsa(cursor: &mut Cursor<'_>, bits: u16) -> Result<RsaPublic, AreaError> {
    let exponent = match field(cursor.be32(), "exponent")? {
        0 => 65537,
        other => other,
    };
    let modulus = field(cursor.tpm2b(), "modulus")?;
    let whole = modulus.first().is_some_and(|first| *first & 0x80 != 0);
    if modulus.len() != usize::from(bits / 8) || !whole {
        return Err(AreaError::ModulusSize { stated: bits, actual: modulus.len() });
    }
    Ok(RsaPublic::new(modulus, &exponent.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::template;

    /// A template with a modulus in it, as TPM2B_PUBLIC.
    fn area(template: &[u8]) -> Vec<u8> {
        let mut area = template[..template.len() - 2].to_vec();
        area.extend_from_slice(&256u16.to_be_bytes());
        area.extend_from_slice(&[0xC5; 256]);
        [&u16::try_from(area.len()).unwrap().to_be_bytes()[..], &area].concat()
    }

    #[test]
    fn the_platforms_attestation_key_is_one_and_no_bit_of_it_may_differ() {
        let good = area(&template::AK);
        let parsed = RsaArea::parse(&good).unwrap();
        parsed.check_attestation_key().unwrap();
        assert_eq!(parsed.key.modulus(), [0xC5; 256]);
        for bit in 0..32 {
            let other = RsaArea { attributes: parsed.attributes ^ 1 << bit, ..parsed.clone() };
            assert_eq!(other.check_attestation_key().unwrap_err().property, "attributes", "bit {bit}");
        }
        let cases = [
            (RsaArea { bits: 1024, ..parsed.clone() }, "size"),
            (RsaArea { key: RsaPublic::new(&[0xC5; 256], &[3]), ..parsed.clone() }, "exponent"),
            (RsaArea { symmetric: alg::AES, ..parsed.clone() }, "symmetric algorithm"),
            (RsaArea { auth_policy: vec![0; 32], ..parsed.clone() }, "policy"),
            (RsaArea { scheme: (alg::NULL, None), ..parsed.clone() }, "scheme"),
            (RsaArea { scheme: (alg::RSASSA, Some(alg::SHA1)), ..parsed }, "scheme"),
        ];
        for (area, property) in cases {
            assert_eq!(area.check_attestation_key().unwrap_err().property, property);
        }
    }

    #[test]
    fn bytes_that_are_no_public_area_are_refused() {
        let good = area(&template::AK);
        for cut in 0..good.len() {
            assert!(RsaArea::parse(&good[..cut]).is_err(), "{cut}");
        }
        assert_eq!(RsaArea::parse(&[&good[..], &[0]].concat()), Err(AreaError::Trailing));
        let mut short = good.clone();
        short[26] = 0x45;
        assert_eq!(RsaArea::parse(&short), Err(AreaError::ModulusSize { stated: 2048, actual: 256 }));
        let ecc = AreaError::Algorithm { field: "type", value: alg::ECC };
        let mut other = good;
        other[2..4].copy_from_slice(&alg::ECC.to_be_bytes());
        assert_eq!(RsaArea::parse(&other), Err(ecc));
    }
}
