//! A token issuer: an RSA key, its JWK set, and tokens with whatever header and claims a test wants.

use std::path::Path;
use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::Decode as _;
use serde_json::{Value, json};

/// A named key pair that signs tokens.
pub struct Issuer {
    kid: &'static str,
    pub key: KeyPair,
}

#[derive(der::Sequence)]
struct RsaPublicKey<'a> {
    n: der::asn1::UintRef<'a>,
    e: der::asn1::UintRef<'a>,
}

pub fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

/// `n` and `e` of a public key.
pub fn numbers(key: &KeyPair) -> (String, String) {
    let public = RsaPublicKey::from_der(key.public_key().as_ref()).expect("PKCS#1");
    (encoded(public.n.as_bytes()), encoded(public.e.as_bytes()))
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        Self { kid, key: KeyPair::generate(KeySize::Rsa2048).expect("random numbers") }
    }

    pub fn from_pkcs8(kid: &'static str, pkcs8: &[u8]) -> Self {
        Self { kid, key: KeyPair::from_pkcs8(pkcs8).expect("a private key") }
    }

    pub fn jwk(&self) -> Value {
        let (n, e) = numbers(&self.key);
        json!({"kid": self.kid, "kty": "RSA", "use": "sig", "alg": "RS256", "n": n, "e": e})
    }

    pub fn publish(&self, file: &Path) {
        let set = json!({"keys": [self.jwk()]});
        std::fs::write(file, set.to_string()).expect("the test's folder is writable");
    }

    pub fn header(&self) -> Value {
        json!({"alg": "RS256", "typ": "JWT", "kid": self.kid})
    }

    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&self.header(), claims)
    }

    /// A token with any header, signed with RS256 whatever the header says.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .expect("the key signs");
        format!("{message}.{}", encoded(signature))
    }
}

/// The classic confusion: the public key (or any bytes) as an HMAC secret.
pub fn hs256_token(secret: &[u8], kid: &str, claims: &Value) -> String {
    let header = json!({"alg": "HS256", "typ": "JWT", "kid": kid});
    let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", encoded(tag))
}

/// A token without a signature.
pub fn unsigned_token(claims: &Value) -> String {
    format!("{}.{}.", encoded(json!({"alg": "none"}).to_string()), encoded(claims.to_string()))
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

macro_rules! issuers {
    ($($name:ident, $kid:literal, $what:literal;)*) => {$(
        #[doc = $what]
        pub fn $name() -> &'static Issuer {
            static KEY: OnceLock<Issuer> = OnceLock::new();
            KEY.get_or_init(|| Issuer::new($kid))
        }
    )*};
}

issuers! {
    attestation, "attestation-1", "The attestation service.";
    control_plane, "control-1", "The control plane.";
    stranger, "attestation-1", "Someone else, who uses the attestation service's key id.";
}

/// The VM's transfer key.
pub fn transfer_key() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).expect("random numbers"))
}
