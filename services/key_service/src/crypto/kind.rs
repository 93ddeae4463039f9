//! The kinds of keys that the vault holds, by the names of Key Vault (`kty`), and what a key of each kind is made of.

use super::ec::{self, Curve, EcPoint};
use super::oct::{self, OctBits};
use super::rsa::{self, Bits, PublicParts};
use super::seal::PrivateKey;

/// What mathematics a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RSA (RFC 8017).
    Rsa,
    /// Elliptic curves (SEC 1, FIPS 186-5).
    Ec,
    /// Symmetric: AES.
    Oct,
}

/// `kty`: a family, and whether the name ends in `-HSM`.
///
/// On the embedded store a key of either custody is sealed under the master key; the suffix is the label that Key
/// Vault answers, and what exportable keys need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyType {
    /// The family.
    pub family: Family,
    /// Whether the name ends in `-HSM`.
    pub hsm: bool,
}

impl KeyType {
    /// The names that are accepted.
    pub const NAMES: &str = "RSA, RSA-HSM, EC, EC-HSM, oct, oct-HSM";

    /// From `kty`, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let (family, hsm) = match name.to_ascii_uppercase().as_str() {
            "RSA" => (Family::Rsa, false),
            "RSA-HSM" => (Family::Rsa, true),
            "EC" => (Family::Ec, false),
            "EC-HSM" => (Family::Ec, true),
            "OCT" => (Family::Oct, false),
            "OCT-HSM" => (Family::Oct, true),
            _ => return None,
        };
        Some(Self { family, hsm })
    }

    /// As Key Vault writes it.
    pub fn name(self) -> &'static str {
        match (self.family, self.hsm) {
            (Family::Rsa, false) => "RSA",
            (Family::Rsa, true) => "RSA-HSM",
            (Family::Ec, false) => "EC",
            (Family::Ec, true) => "EC-HSM",
            (Family::Oct, false) => "oct",
            (Family::Oct, true) => "oct-HSM",
        }
    }
}

impl Family {
    /// The operations that a key of this family can permit, in Key Vault's order.
    pub fn operations(self) -> &'static [&'static str] {
        match self {
            Family::Rsa => &["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"],
            Family::Ec => &["sign", "verify"],
            Family::Oct => &["encrypt", "decrypt", "wrapKey", "unwrapKey"],
        }
    }
}

/// Family and size: all that making a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySpec {
    /// RSA with this modulus.
    Rsa(Bits),
    /// A key on this curve.
    Ec(Curve),
    /// An AES key of this length.
    Oct(OctBits),
}

/// The part of a key that everybody may see. A symmetric key has none but its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Modulus and exponent.
    Rsa(PublicParts),
    /// A point.
    Ec(EcPoint),
    /// A length.
    Oct(OctBits),
}

impl PublicKey {
    /// What another key like this one would be made from.
    pub fn spec(&self) -> Option<KeySpec> {
        match self {
            PublicKey::Rsa(parts) => {
                u32::try_from(parts.bits()).ok().and_then(Bits::from_number).map(KeySpec::Rsa)
            }
            PublicKey::Ec(point) => Some(KeySpec::Ec(point.curve)),
            PublicKey::Oct(bits) => Some(KeySpec::Oct(*bits)),
        }
    }
}

/// The public part of a private key that is like `like`: of its family, and on its curve. Nothing if it is none.
pub fn public_part(private: &PrivateKey, like: &PublicKey) -> Option<PublicKey> {
    match like {
        PublicKey::Rsa(_) => rsa::public_part(private).map(PublicKey::Rsa),
        PublicKey::Ec(point) => ec::public_part(private, point.curve).map(PublicKey::Ec),
        PublicKey::Oct(_) => {
            let bits = u32::try_from(private.as_bytes().len() * 8).ok()?;
            OctBits::from_number(bits).map(PublicKey::Oct)
        }
    }
}

/// Makes a key. An RSA key takes some hundred milliseconds; call it where blocking is allowed.
pub fn generate(spec: KeySpec) -> (PrivateKey, PublicKey) {
    match spec {
        KeySpec::Rsa(bits) => {
            let (private, public) = rsa::generate(bits);
            (private, PublicKey::Rsa(public))
        }
        KeySpec::Ec(curve) => {
            let (private, public) = ec::generate(curve);
            (private, PublicKey::Ec(public))
        }
        KeySpec::Oct(bits) => (oct::generate(bits), PublicKey::Oct(bits)),
    }
}
