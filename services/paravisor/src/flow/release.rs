//! The key service's answer: a JWS around the key, which is wrapped to the transfer key.
//!
//! The answer's signature is checked with the certificate that comes with it, for its integrity only: that it comes from
//! the tenant's key service is TLS under the trust bundle, which HOST_DATA binds. The host writes the launch document and
//! so chooses the bundle: nothing but the key itself counts when a guest state is opened or moved to another key
//! ([`super::change_key`]). Wrapping as in Key Vault's
//! `RSA_AES_KEY_WRAP_256`: RSA-OAEP-256 of an AES key (one modulus long), then AES key wrap with padding (RFC 5649) of the
//! PKCS#8 key.

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rsa::OAEP_SHA256_MGF1SHA256;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use public_api::encoding::{from_base64_any, to_base64url};
use public_api::keys::{KeyEncryption, KeyHsm, KeyReleaseParameters, KeySuccession, ReleasePayload};
use sealed_disk::guest_state::Kek;
use serde::Deserialize;
use x509_cert::der::Decode as _;
use zeroize::Zeroizing;

use super::attest::TransferKey;
use super::world::Services;
use crate::failure::Stop;

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    x5c: Vec<String>,
}

/// Which key is asked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Its URL with the version.
    pub(super) key_id: &'a str,
    /// The key that shall follow it, if it shall say that it may.
    pub(super) successor: Option<&'a str>,
}

/// What came back.
pub struct Released {
    /// The key.
    pub kek: Kek,
    /// What it signed about its successor; as yet only claimed.
    pub(super) succession: Option<KeySuccession>,
    /// The nonce of the request that it answers.
    pub(super) nonce: String,
}

/// Presents the token and unwraps what comes back.
pub(super) fn release(
    services: &dyn Services,
    transfer: &TransferKey,
    wanted: Wanted<'_>,
    token: &str,
) -> Result<Released, Stop> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| unusable("no random numbers for a nonce"))?;
    let nonce = to_base64url(&random);
    let jws = services.release(
        wanted.key_id,
        &KeyReleaseParameters {
            target: token.to_owned(),
            nonce: Some(nonce.clone()),
            enc: Some(KeyEncryption::RsaAesKeyWrap256),
            successor: wanted.successor.map(str::to_owned),
        },
    )?;
    let payload: ReleasePayload = serde_json::from_slice(&verified_payload(&jws)?)
        .map_err(|_| unusable("the payload is not a release of the known form"))?;
    if payload.request.nonce.as_deref() != Some(&nonce) {
        return Err(unusable("it answers another request (nonce)"));
    }
    if payload.request.kid != wanted.key_id {
        return Err(unusable(&format!("it releases {}", payload.request.kid)));
    }
    let wrapped = payload.response.key.key.key_hsm.ok_or_else(|| unusable("it holds no key"))?;
    let wrapped = from_base64_any(&wrapped).map_err(|_| unusable("key_hsm is not base64"))?;
    let wrapped: KeyHsm =
        serde_json::from_slice(&wrapped).map_err(|_| unusable("key_hsm is not of the known form"))?;
    if wrapped.header.enc != KeyEncryption::RsaAesKeyWrap256 {
        return Err(unusable("the key is wrapped in another way than asked for"));
    }
    let kek = Kek::from_pkcs8(&unwrap(transfer, &wrapped.ciphertext)?)?.named(wanted.key_id);
    Ok(Released { kek, succession: payload.response.succession, nonce })
}

/// The payload of a compact JWS (RS256) whose signature fits the first certificate of its `x5c`.
fn verified_payload(jws: &str) -> Result<Vec<u8>, Stop> {
    let (signed, signature) = jws.rsplit_once('.').ok_or_else(|| unusable("it is no JWS"))?;
    let (header, payload) = signed.split_once('.').ok_or_else(|| unusable("it is no JWS"))?;
    let decode = |text: &str| from_base64_any(text).map_err(|_| unusable("a part of the JWS is not base64"));
    let header: Header = serde_json::from_slice(&decode(header)?)
        .map_err(|_| unusable("the JWS header is not of the known form"))?;
    if header.alg != "RS256" {
        return Err(unusable("the JWS is not signed with RS256"));
    }
    let certificate = header.x5c.first().ok_or_else(|| unusable("the JWS names no certificate"))?;
    let certificate = x509_cert::Certificate::from_der(&decode(certificate)?)
        .map_err(|_| unusable("the JWS certificate cannot be read"))?;
    let key = certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
        .verify(signed.as_bytes(), &decode(signature)?)
        .map_err(|_| unusable("the JWS signature does not verify"))?;
    decode(payload)
}

fn unwrap(transfer: &TransferKey, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Stop> {
    let wrong = || unusable("the key does not unwrap with this VM's transfer key");
    let (kek, key) = ciphertext.split_at_checked(transfer.private.key_size_bytes()).ok_or_else(wrong)?;
    let mut plain = Zeroizing::new(vec![0; transfer.private.min_output_size()]);
    let kek =
        transfer.private.decrypt(&OAEP_SHA256_MGF1SHA256, kek, &mut plain, None).map_err(|_| wrong())?;
    let kek = AesKek::new(&AES_256, kek).map_err(|_| wrong())?;
    let mut pkcs8 = Zeroizing::new(vec![0; key.len()]);
    let length = kek.unwrap_with_padding(key, &mut pkcs8).map_err(|_| wrong())?.len();
    pkcs8.truncate(length);
    Ok(pkcs8)
}

fn unusable(why: &str) -> Stop {
    Stop::refused(
        "ReleaseUnusable",
        "answer of the key service",
        "the VM's key, wrapped to this VM's transfer key",
        why,
        "a released key is used only if it answers this request and unwraps with this VM's key",
        "look into the key service's log",
    )
}
