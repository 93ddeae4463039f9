//! The primitives, with the library that the service uses, keys and contexts made beforehand.

use std::hint::black_box;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    UnparsedPublicKey,
};
use public_api::attestation_policy::TokenAlgorithm;

use crate::cpu;

/// The signed part of a report.
const REPORT: usize = 0x2a0;
/// About as long as a token's header and claims.
const TOKEN: usize = 4000;

/// One ECDSA verification on P-384 with SHA-384.
pub fn p384_verify() -> f64 {
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
    let message = vec![7; REPORT];
    let signature = key.sign(&SystemRandom::new(), &message).expect("signed");
    let public = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key.public_key().as_ref().to_vec());
    cpu::micros(200, || public.verify(black_box(&message), signature.as_ref()).expect("it holds"))
}

/// One token signature.
pub fn sign(algorithm: TokenAlgorithm) -> f64 {
    let random = SystemRandom::new();
    let message = vec![7; TOKEN];
    match algorithm {
        TokenAlgorithm::ES384 => {
            let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
            cpu::micros(200, || {
                let _ = black_box(key.sign(&random, &message).expect("signed"));
            })
        }
        TokenAlgorithm::RS256 => {
            let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
            let mut signature = vec![0; key.public_modulus_len()];
            cpu::micros(200, || {
                key.sign(&RSA_PKCS1_SHA256, &random, black_box(&message), &mut signature).expect("signed");
            })
        }
    }
}
