//! Wrapping a private key for release: RSA-OAEP of a fresh AES key, then AES key wrap with padding (RFC 5649) of the
//! PKCS#8 key (RSA, EC) or of the key's bytes (oct). Source: Key Vault REST API, `release`, `KeyEncryptionAlgorithm`; PKCS#11 `CKM_RSA_AES_KEY_WRAP`.

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OaepAlgorithm};
use policy::release::ReleaseDecision;
use public_api::keys::{KeyEncryption, KeyHsm, KeyHsmHeader};
use zeroize::Zeroizing;

use super::error::CryptoError;
use super::kind::Family;
use super::rsa::PublicParts;
use super::seal::PrivateKey;
use crate::hsm::{Hsm, HsmError, KeyId};

/// Bytes of a key-encryption key.
const KEK_LEN: usize = 32;

/// The key in a verified token that a released key is wrapped to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetKey {
    /// Its id in the token.
    pub kid: String,
    /// The key.
    pub key: PublicParts,
}

/// Wraps a private key to `target`. There is no way to do it without a policy's decision for that token.
pub fn release_to(
    _decision: &ReleaseDecision,
    private: &PrivateKey,
    target: &TargetKey,
    enc: KeyEncryption,
) -> Result<KeyHsm, CryptoError> {
    let mut kek = Zeroizing::new([0; KEK_LEN]);
    rand::fill(kek.as_mut_slice()).expect("the system has random numbers");
    let mut ciphertext = encrypted_kek(target, enc, kek.as_slice())?;
    ciphertext.extend_from_slice(&padded_wrap(kek.as_slice(), private));
    let header = KeyHsmHeader { kid: target.kid.clone(), alg: "dir".to_owned(), enc };
    Ok(KeyHsm { schema_version: "1.0".to_owned(), header, ciphertext })
}

/// The same for a key that lies in a token: the token wraps it, and this service never has it. Blocks.
pub fn release_from_token(
    decision: &ReleaseDecision,
    (hsm, id, family): (&Hsm, KeyId, Family),
    target: &TargetKey,
    enc: KeyEncryption,
) -> Result<Result<KeyHsm, CryptoError>, HsmError> {
    let mut kek = Zeroizing::new(vec![0; KEK_LEN]);
    rand::fill(&mut kek).expect("the system has random numbers");
    let mut ciphertext = match encrypted_kek(target, enc, &kek) {
        Ok(block) => block,
        Err(error) => return Ok(Err(error)),
    };
    ciphertext.extend_from_slice(&hsm.export(decision, (id, family), kek)?);
    let header = KeyHsmHeader { kid: target.kid.clone(), alg: "dir".to_owned(), enc };
    Ok(Ok(KeyHsm { schema_version: "1.0".to_owned(), header, ciphertext }))
}

/// A key-encryption key of its own, and a private key under it: what a token takes in.
pub fn for_token(private: &PrivateKey) -> (Zeroizing<Vec<u8>>, Vec<u8>) {
    let mut kek = Zeroizing::new(vec![0; KEK_LEN]);
    rand::fill(&mut kek).expect("the system has random numbers");
    let wrapped = padded_wrap(&kek, private);
    (kek, wrapped)
}

fn encrypted_kek(target: &TargetKey, enc: KeyEncryption, kek: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let key = target.key.encrypting_key()?;
    let mut block = vec![0; key.ciphertext_size()];
    let written = key.encrypt(oaep(enc), kek, &mut block, None).map_err(|_| CryptoError::Value)?.len();
    block.truncate(written);
    Ok(block)
}

/// AES key wrap with padding (RFC 5649).
fn padded_wrap(kek: &[u8], private: &PrivateKey) -> Vec<u8> {
    let plaintext = private.as_bytes();
    let kek = AesKek::new(&AES_256, kek).expect("the key-encryption key has 32 bytes");
    // RFC 5649: padded to 8 bytes, and 8 bytes of integrity check.
    let mut output = vec![0; plaintext.len().next_multiple_of(8) + 8];
    let written =
        kek.wrap_with_padding(plaintext, &mut output).expect("the buffer has the length of RFC 5649").len();
    output.truncate(written);
    output
}

fn oaep(enc: KeyEncryption) -> &'static OaepAlgorithm {
    match enc {
        KeyEncryption::CkmRsaAesKeyWrap => &OAEP_SHA1_MGF1SHA1,
        KeyEncryption::RsaAesKeyWrap256 => &OAEP_SHA256_MGF1SHA256,
        KeyEncryption::RsaAesKeyWrap384 => &OAEP_SHA384_MGF1SHA384,
    }
}
