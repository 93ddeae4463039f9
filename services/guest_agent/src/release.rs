//! A key of the key service, released to this VM: the token names a key of this TPM, and what comes back is wrapped to it.
//!
//! Wrapping as in Key Vault's `RSA_AES_KEY_WRAP_256`: RSA-OAEP-256 of an AES key (one modulus long), then AES key wrap
//! with padding (RFC 5649) of the key. The answer comes over TLS from the service that the caller named; its own
//! signature is by a certificate that comes with it and would prove nothing more.

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use public_api::encoding::from_base64_any;
use public_api::keys::{KeyEncryption, KeyHsm, KeyReleaseParameters, KeyReleaseResult, ReleasePayload};
use vtpm::command::RsaPadding;
use zeroize::Zeroizing;

use crate::azure_guest::EphemeralKey;
use crate::failure::Failure;
use crate::http::Client;
use crate::tpm::Tpm;

const API_VERSION: &str = "7.4";
/// Bytes of an RSA-2048 ciphertext.
const MODULUS: usize = 256;

/// A released key. It has no `Debug`: nothing of it may reach a log.
pub struct Released {
    /// The key's URL with its version.
    pub kid: String,
    /// `RSA`, `oct`, ... as the service calls it.
    pub kty: String,
    /// PKCS#8 of an RSA or elliptic-curve key, the bytes of a symmetric one.
    pub key: Zeroizing<Vec<u8>>,
}

/// Asks for a key, `https://vault/keys/name/version`, with a token that names `wrapping`, and unwraps it.
///
/// # Errors
/// The service's refusal, or an answer that is for somebody else.
pub fn release(
    tpm: &mut dyn Tpm,
    client: &Client,
    key: &str,
    bearer: Option<&str>,
    token: String,
    wrapping: &EphemeralKey,
) -> Result<Released, Failure> {
    let nonce = token_nonce()?;
    let url = format!("{}/release?api-version={API_VERSION}", key.trim_end_matches('/'));
    let parameters = KeyReleaseParameters {
        target: token,
        nonce: Some(nonce.clone()),
        enc: Some(KeyEncryption::RsaAesKeyWrap256),
        successor: None,
    };
    let answer: KeyReleaseResult = client.post(&url, bearer, &parameters)?;
    let payload = payload(&answer.value)?;
    if payload.request.nonce.as_deref() != Some(&nonce) {
        return Err(unusable("it answers another request (nonce)"));
    }
    let released = payload.response.key.key;
    let kid = released.kid.clone().unwrap_or_default();
    if !names(&kid, key) {
        return Err(unusable(&format!("it releases {kid}")));
    }
    let wrapped = released.key_hsm.as_deref().ok_or_else(|| unusable("it holds no key"))?;
    Ok(Released { kid, kty: released.kty.clone(), key: unwrap(tpm, &wrapped_key(wrapped)?, wrapping)? })
}

fn token_nonce() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::us("drawing random numbers"))?;
    Ok(hex::encode(bytes))
}

/// Whether a key's URL is the asked-for one, or a version of it.
fn names(kid: &str, asked: &str) -> bool {
    let asked = asked.trim_end_matches('/');
    kid == asked || kid.strip_prefix(asked).is_some_and(|rest| rest.starts_with('/'))
}

fn payload(jws: &str) -> Result<ReleasePayload, Failure> {
    let part = jws.split('.').nth(1).ok_or_else(|| unusable("it is no JWS"))?;
    let bytes = from_base64_any(part).map_err(|error| unusable("it is no JWS").because(error))?;
    serde_json::from_slice(&bytes).map_err(|error| unusable("it is no release").because(error))
}

fn wrapped_key(key_hsm: &str) -> Result<Vec<u8>, Failure> {
    let bytes = from_base64_any(key_hsm).map_err(|error| unusable("key_hsm is not base64").because(error))?;
    let wrapped: KeyHsm = serde_json::from_slice(&bytes)
        .map_err(|error| unusable("key_hsm is of another form").because(error))?;
    match wrapped.header.enc {
        KeyEncryption::RsaAesKeyWrap256 => Ok(wrapped.ciphertext),
        _ => Err(unusable("the key is wrapped in another way than asked for")),
    }
}

/// The first block unwraps in the TPM, the rest with what was in it.
///
/// # Errors
/// A key that was wrapped for another VM or another boot.
pub fn unwrap(
    tpm: &mut dyn Tpm,
    wrapped: &[u8],
    wrapping: &EphemeralKey,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let wrong = || unusable("the key does not unwrap with this VM's key");
    let (kek, key) = wrapped.split_at_checked(MODULUS).ok_or_else(wrong)?;
    let kek = wrapping.decrypt(tpm, kek, RsaPadding::OaepSha256)?;
    let kek = AesKek::new(&AES_256, &kek).map_err(|_| wrong())?;
    let mut plain = Zeroizing::new(vec![0; key.len()]);
    let length = kek.unwrap_with_padding(key, &mut plain).map_err(|_| wrong())?.len();
    plain.truncate(length);
    Ok(plain)
}

fn unusable(why: &str) -> Failure {
    Failure::untrusted(
        format!("the key service's answer cannot be used: {why}"),
        "look into its decision log",
    )
}
