//! The primitives, with the library that the service uses, keys and contexts made beforehand.

use std::hint::black_box;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair as RsaKeyPair, KeySize, Pkcs1PublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use public_api::attestation_policy::TokenAlgorithm;

use crate::cpu;

/// The signed part of a report.
const REPORT: usize = 0x2a0;
/// About as long as a quote.
const QUOTE: usize = 140;
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

/// One RSASSA-PKCS1-v1_5 verification under a key of 2048 bits, as of a quote.
pub fn rsa_2048_verify() -> f64 {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let message = vec![7; QUOTE];
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature).expect("signed");
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref().to_vec());
    cpu::micros(500, || public.verify(black_box(&message), &signature).expect("it holds"))
}

/// One RSAES-PKCS1-v1_5 encryption of an AES key.
pub fn rsa_2048_encrypt() -> f64 {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let public = PublicKeyComponents {
        n: key.public_key().modulus().big_endian_without_leading_zero().to_vec(),
        e: key.public_key().exponent().big_endian_without_leading_zero().to_vec(),
    };
    let public: PublicEncryptingKey = public.try_into().expect("a key");
    let public = Pkcs1PublicEncryptingKey::new(public).expect("a key");
    let mut ciphertext = vec![0; public.ciphertext_size()];
    cpu::micros(500, || {
        let _ = black_box(public.encrypt(black_box(&[7; 32]), &mut ciphertext).expect("encrypted"));
    })
}
