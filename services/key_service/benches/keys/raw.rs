//! The primitives, with the library that the service uses, keys and contexts made beforehand.

use std::hint::black_box;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey,
};
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use serde_json::{Value, json};

use crate::cpu;
use crate::support::issuer::encoded;
use crate::support::jwk;

const CALLS: u32 = 100;
const MESSAGE: [u8; 32] = [7; 32];

/// What is done with the private key.
#[derive(Clone, Copy)]
pub enum Operation {
    /// RSAES-OAEP with SHA-256, of 32 bytes.
    Unwrap,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Sign,
}

impl Operation {
    /// The last part of the path.
    pub fn route(self) -> &'static str {
        match self {
            Operation::Unwrap => "unwrapkey",
            Operation::Sign => "sign",
        }
    }
}

/// The key that both the service and the raw primitive use.
pub struct RsaKey {
    /// Its size.
    pub bits: u32,
    pair: KeyPair,
    decrypting: OaepPrivateDecryptingKey,
    wrapped: Vec<u8>,
}

impl RsaKey {
    /// A new key.
    pub fn generate(bits: u32) -> Self {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            _ => KeySize::Rsa4096,
        };
        let pair = KeyPair::generate(size).expect("a key");
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().expect("PKCS#8");
        let private = PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref()).expect("a key");
        let public = OaepPublicEncryptingKey::new(private.public_key()).expect("a key");
        let mut wrapped = vec![0; public.ciphertext_size()];
        public.encrypt(&OAEP_SHA256_MGF1SHA256, &MESSAGE, &mut wrapped, None).expect("encrypted");
        let decrypting = OaepPrivateDecryptingKey::new(private).expect("a key");
        Self { bits, pair, decrypting, wrapped }
    }

    /// For an import.
    pub fn jwk(&self) -> Value {
        let pkcs8: Pkcs8V1Der<'_> = self.pair.as_der().expect("PKCS#8");
        jwk::rsa_members(pkcs8.as_ref())
    }

    /// The body of a request.
    pub fn request(&self, operation: Operation) -> Value {
        match operation {
            Operation::Unwrap => json!({"alg": "RSA-OAEP-256", "value": encoded(&self.wrapped)}),
            Operation::Sign => json!({"alg": "RS256", "value": encoded(digest(&SHA256, &MESSAGE))}),
        }
    }

    /// Microseconds of CPU of one operation.
    pub fn micros(&self, operation: Operation) -> f64 {
        let mut output = vec![0; self.wrapped.len()];
        match operation {
            Operation::Unwrap => cpu::micros(CALLS, || {
                let wrapped = black_box(&self.wrapped);
                let plain = self.decrypting.decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut output, None);
                assert_eq!(plain.expect("decrypted").len(), MESSAGE.len());
            }),
            Operation::Sign => cpu::micros(CALLS, || {
                let random = SystemRandom::new();
                self.pair.sign(&RSA_PKCS1_SHA256, &random, black_box(&MESSAGE), &mut output).expect("signed");
            }),
        }
    }
}
