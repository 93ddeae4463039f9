//! Private JSON Web Keys (RFC 7518 section 6) as keys of the vault, refused if they are inconsistent or weak.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};
use public_api::key_import::{PrivateJwk, SecretBytes};
use zeroize::Zeroizing;

use super::ec::{self, Curve};
use super::kind::{Family, PublicKey};
use super::oct::OctBits;
use super::opened::OpenedKey;
use super::rsa::{Bits, PublicParts, RsaPrivate};
use super::seal::PrivateKey;
use super::sign::{self, Sha2, SignatureAlgorithm};

/// What is wrong with a key: the member of the JWK, and the reason. Neither holds a secret.
#[derive(Debug, PartialEq, Eq)]
pub struct BadKey {
    /// Name of the member.
    pub member: &'static str,
    /// The reason.
    pub reason: String,
}

type Imported = Result<(PrivateKey, PublicKey), BadKey>;

fn bad(member: &'static str, reason: impl Into<String>) -> BadKey {
    BadKey { member, reason: reason.into() }
}

/// Reads a key of this family.
pub fn import(family: Family, jwk: &PrivateJwk) -> Imported {
    if jwk.key_hsm.is_some() {
        return Err(bad("key_hsm", "this vault cannot open keys that are wrapped for another vendor's HSM"));
    }
    no_others(family, jwk)?;
    match family {
        Family::Rsa => rsa(jwk),
        Family::Ec => curve(jwk),
        Family::Oct => symmetric(jwk),
    }
}

/// Refuses members of another family: a key is one key.
fn no_others(family: Family, jwk: &PrivateJwk) -> Result<(), BadKey> {
    use Family::{Ec, Oct, Rsa};
    let members: [(&'static str, bool, &[Family]); 12] = [
        ("n", jwk.n.is_some(), &[Rsa]),
        ("e", jwk.e.is_some(), &[Rsa]),
        ("d", jwk.d.is_some(), &[Rsa, Ec]),
        ("p", jwk.p.is_some(), &[Rsa]),
        ("q", jwk.q.is_some(), &[Rsa]),
        ("dp", jwk.dp.is_some(), &[Rsa]),
        ("dq", jwk.dq.is_some(), &[Rsa]),
        ("qi", jwk.qi.is_some(), &[Rsa]),
        ("k", jwk.k.is_some(), &[Oct]),
        ("crv", jwk.crv.is_some(), &[Ec]),
        ("x", jwk.x.is_some(), &[Ec]),
        ("y", jwk.y.is_some(), &[Ec]),
    ];
    match members.iter().find(|(_, given, families)| *given && !families.contains(&family)) {
        Some((member, ..)) => Err(bad(member, format!("a key of type {} has no {member}", jwk.kty))),
        None => Ok(()),
    }
}

fn member<'a>(value: Option<&'a SecretBytes>, name: &'static str) -> Result<&'a [u8], BadKey> {
    value
        .map(SecretBytes::as_bytes)
        .ok_or_else(|| bad(name, format!("a private key of this type needs {name}")))
}

/// A big-endian number without leading zeros.
fn number<'a>(value: Option<&'a SecretBytes>, name: &'static str) -> Result<&'a [u8], BadKey> {
    let bytes = member(value, name)?;
    let start =
        bytes.iter().position(|byte| *byte != 0).ok_or_else(|| bad(name, format!("{name} is zero")))?;
    Ok(&bytes[start..])
}

fn rsa(jwk: &PrivateJwk) -> Imported {
    let public = PublicParts {
        modulus: number(jwk.n.as_ref(), "n")?.to_vec(),
        exponent: number(jwk.e.as_ref(), "e")?.to_vec(),
    };
    let bits = public.bits();
    if u32::try_from(bits).ok().and_then(Bits::from_number).is_none() {
        return Err(bad(
            "n",
            format!("a modulus of {bits} bits is not supported; expected 2048, 3072 or 4096"),
        ));
    }
    exponent(&public.exponent)?;
    let (d, p, q) =
        (number(jwk.d.as_ref(), "d")?, number(jwk.p.as_ref(), "p")?, number(jwk.q.as_ref(), "q")?);
    primes(public.modulus.len(), d, p, q)?;
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: public.modulus.as_slice(), e: public.exponent.as_slice() },
        d,
        p,
        q,
        dP: number(jwk.dp.as_ref(), "dp")?,
        dQ: number(jwk.dq.as_ref(), "dq")?,
        qInv: number(jwk.qi.as_ref(), "qi")?,
    };
    let pair = KeyPair::from_components(&components)
        .map_err(|_| bad("key", "the members of the RSA key do not belong together"))?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| bad("key", "the RSA key cannot be encoded"))?;
    let private = PrivateKey::new(Zeroizing::new(der.as_ref().to_vec()));
    works(private, public)
}

/// NIST SP 800-56B section 6.2: an exponent of less than 17 bits is weak. One of more than 32 bits is not usual anywhere.
fn exponent(exponent: &[u8]) -> Result<(), BadKey> {
    let value = exponent.iter().take(5).fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let fits = exponent.len() <= 4 && value >= 65_537 && value % 2 == 1;
    if fits { Ok(()) } else { Err(bad("e", "expected an odd exponent from 65537 to 2^32")) }
}

/// FIPS 186-5 appendix A.1.1: primes of half the length that differ in their first 100 bits, and a private exponent of
/// more than half the length.
fn primes(modulus_len: usize, d: &[u8], p: &[u8], q: &[u8]) -> Result<(), BadKey> {
    const CLOSE: usize = 12;
    let half = modulus_len / 2;
    if p.len() != half || q.len() != half {
        return Err(bad("p", "the primes do not have half the length of the modulus"));
    }
    if p.get(..CLOSE) == q.get(..CLOSE) {
        return Err(bad("q", "the primes are so close to each other that the modulus can be factored"));
    }
    if d.len() <= half {
        return Err(bad("d", "the private exponent is so small that it can be found"));
    }
    Ok(())
}

/// Signs random digests and verifies them. For factors that are no primes this fails (it is a Fermat test to random
/// bases), which the library's check of the key's equations does not see.
fn works(private: PrivateKey, public: PublicParts) -> Imported {
    let public = PublicKey::Rsa(public);
    let opened = RsaPrivate::open(&private).map(OpenedKey::Rsa);
    let opened = opened.map_err(|_| bad("key", "the members of the RSA key do not belong together"))?;
    let algorithm = SignatureAlgorithm::Pss(Sha2::Sha256);
    for _ in 0..2 {
        let mut digest = [0; 32];
        rand::fill(&mut digest).expect("the system has random numbers");
        let signature = sign::sign(&opened, algorithm, &digest);
        let holds = signature.and_then(|signature| sign::verify(&public, algorithm, &digest, &signature));
        if holds != Ok(true) {
            return Err(bad("p", "the factors of the modulus are not prime"));
        }
    }
    Ok((private, public))
}

fn curve(jwk: &PrivateJwk) -> Imported {
    let name = jwk.crv.as_deref().ok_or_else(|| bad("crv", "a key of an elliptic curve needs crv"))?;
    let curve = Curve::from_name(name).ok_or_else(|| {
        bad("crv", format!("this curve is not supported; expected one of {}", Curve::NAMES))
    })?;
    let (d, x, y) =
        (member(jwk.d.as_ref(), "d")?, member(jwk.x.as_ref(), "x")?, member(jwk.y.as_ref(), "y")?);
    let (private, public) = ec::import(curve, d, x, y)
        .ok_or_else(|| bad("key", "the point is not on the curve, or does not belong to d"))?;
    Ok((private, PublicKey::Ec(public)))
}

fn symmetric(jwk: &PrivateJwk) -> Imported {
    let key = member(jwk.k.as_ref(), "k")?;
    let bits = u32::try_from(key.len() * 8).ok().and_then(OctBits::from_number).ok_or_else(|| {
        bad("k", format!("a key of {} bytes is not supported; expected 16, 24 or 32", key.len()))
    })?;
    if key.iter().all(|byte| Some(byte) == key.first()) {
        return Err(bad("k", "a key of one repeated byte is no secret"));
    }
    Ok((PrivateKey::new(Zeroizing::new(key.to_vec())), PublicKey::Oct(bits)))
}
