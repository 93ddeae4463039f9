//! The sealed token: readable only by the TPM that was quoted, while its PCRs are as quoted.
//!
//! A fresh AES-256 key encrypts the JWT with GCM under the additional data `Transport Key`; the ephemeral key of the
//! request encrypts that key with RSAES-PKCS1-v1_5, which is what the client's `TPM2_RSA_Decrypt` undoes
//! (`client-library`, `TpmUnseal.cpp`). The names of mode and padding are the protocol's; GCM pads nothing.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents};
use public_api::encoding::{to_base64, to_base64url};
use serde::Serialize;
use vtpm::RsaPublic;
use zeroize::Zeroizing;

const ADDITIONAL_DATA: &[u8; 13] = b"Transport Key";

/// Why a token was not sealed.
#[derive(Debug, thiserror::Error)]
#[error("encrypting a token to the key of the guest's TPM")]
pub struct SealError;

impl From<Unspecified> for SealError {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Sealed {
    encrypted_inner_key: String,
    encryption_params: Parameters,
    authentication_data: String,
    jwt: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Parameters {
    block_mode: &'static str,
    block_padding: &'static str,
    cipher: &'static str,
    key_size_in_bits: u32,
    iv: String,
}

/// Seals a JWT; the result is what stands in the answer's `token`: base64url of the JSON.
pub fn seal(jwt: &str, key: &RsaPublic) -> Result<String, SealError> {
    let mut inner = Zeroizing::new([0; 32]);
    rand::fill(&mut *inner)?;
    let mut iv = [0; NONCE_LEN];
    rand::fill(&mut iv)?;
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*inner)?);
    let mut ciphertext = jwt.as_bytes().to_vec();
    let tag = cipher.seal_in_place_separate_tag(
        Nonce::assume_unique_for_key(iv),
        Aad::from(ADDITIONAL_DATA),
        &mut ciphertext,
    )?;
    let sealed = Sealed {
        encrypted_inner_key: to_base64(&encrypted(&*inner, key)?),
        encryption_params: Parameters {
            block_mode: "ChainingModeGCM",
            block_padding: "PKCS7",
            cipher: "AES",
            key_size_in_bits: 256,
            iv: to_base64(&iv),
        },
        authentication_data: to_base64(tag.as_ref()),
        jwt: to_base64(&ciphertext),
    };
    let json = serde_json::to_vec(&sealed).expect("the structure has only string keys");
    Ok(to_base64url(&json))
}

/// RSAES-PKCS1-v1_5.
fn encrypted(inner: &[u8], key: &RsaPublic) -> Result<Vec<u8>, SealError> {
    let components = PublicKeyComponents { n: key.modulus(), e: key.exponent() };
    let key: PublicEncryptingKey = components.try_into()?;
    let key = Pkcs1PublicEncryptingKey::new(key)?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    let length = key.encrypt(inner, &mut ciphertext)?.len();
    ciphertext.truncate(length);
    Ok(ciphertext)
}
