//! Documents that a key signs which the configuration pins: tables of minimum patch levels, reference values. Compact
//! JWS (RFC 7515 section 7.1); the payload says itself what it is, so that no document passes for another kind.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use der::{Decode as _, Encode as _};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use public_api::Denial;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::public_key::{KeyKind, signing_key};
use crate::config::{ConfigError, read};

/// Longest accepted document.
const MAX_DOCUMENT: usize = 8 * 1024 * 1024;

/// The keys of one kind of document.
pub struct PinnedKeys {
    setting: &'static str,
    keys: Vec<PinnedKey>,
}

struct PinnedKey {
    /// SHA-256 of the public key, hex.
    id: String,
    algorithms: &'static [Algorithm],
    key: DecodingKey,
}

const RSA: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS384, Algorithm::PS256, Algorithm::PS384];

impl PinnedKeys {
    /// Reads the files of a setting: PEM of certificates and public keys, or a JWKS.
    pub fn read(setting: &'static str, files: &[PathBuf]) -> Result<Self, ConfigError> {
        let mut keys = Vec::new();
        for path in files {
            let found = keys_of(&read(path)?);
            if found.is_empty() {
                let problem = "the file holds no RSA, P-256 or P-384 key, neither as PEM nor as JWKS";
                return Err(ConfigError::value(setting, format!("{}: {problem}", path.display())));
            }
            keys.extend(found);
        }
        Ok(Self { setting, keys })
    }

    /// Whether no document can be accepted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The payload of a document that a pinned key signed, and that key's id.
    pub fn open<T: DeserializeOwned>(&self, jws: &str) -> Result<(T, String), Box<Denial>> {
        if jws.len() > MAX_DOCUMENT {
            return Err(unreadable(format!("{} bytes, which is too long", jws.len())));
        }
        let header = jsonwebtoken::decode_header(jws).map_err(|error| unreadable(error.to_string()))?;
        let mut validation = Validation::new(header.alg);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        for key in self.keys.iter().filter(|key| key.algorithms.contains(&header.alg)) {
            if jsonwebtoken::decode::<serde_json::Value>(jws, &key.key, &validation).is_ok() {
                let payload = jws.split('.').nth(1).unwrap_or_default();
                let payload = public_api::encoding::from_base64_any(payload)
                    .map_err(|error| unreadable(error.to_string()))?;
                let document = serde_json::from_slice(&payload).map_err(|e| unreadable(e.to_string()))?;
                return Ok((document, key.id.clone()));
            }
        }
        Err(self.stranger())
    }

    fn stranger(&self) -> Box<Denial> {
        let ids: Vec<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        Box::new(Denial::new(
            "DocumentSignerUnknown",
            "signature",
            format!("a signature by one of the keys [{}]", ids.join(", ")),
            "another signature",
            format!("{} of the configuration: only these keys are believed", self.setting),
            "have the document signed by one of these keys, or pin the key that signed it",
        ))
    }
}

fn unreadable(problem: String) -> Box<Denial> {
    Box::new(Denial::new(
        "DocumentUnreadable",
        "document",
        "a compact JWS over the JSON of a document of this kind, without unknown fields",
        problem,
        "RFC 7515 section 7.1: header, payload and signature with dots between them",
        "sign the document anew",
    ))
}

fn keys_of(file: &[u8]) -> Vec<PinnedKey> {
    if let Ok(set) = serde_json::from_slice::<JwkSet>(file) {
        return set.keys.iter().filter_map(key_of_jwk).collect();
    }
    let certificates = CertificateDer::pem_slice_iter(file).filter_map(|der| {
        let certificate = x509_cert::Certificate::from_der(&der.ok()?).ok()?;
        certificate.tbs_certificate().subject_public_key_info().to_der().ok()
    });
    let keys = SubjectPublicKeyInfoDer::pem_slice_iter(file).filter_map(|der| Some(der.ok()?.to_vec()));
    certificates.chain(keys).filter_map(|spki| key_of_spki(&spki)).collect()
}

fn key_of_spki(spki: &[u8]) -> Option<PinnedKey> {
    let info = SubjectPublicKeyInfoOwned::from_der(spki).ok()?;
    let (kind, bits) = signing_key(&info)?;
    let (algorithms, key): (&'static [Algorithm], _) = match kind {
        KeyKind::Rsa => (RSA, DecodingKey::from_rsa_der(bits)),
        KeyKind::P256 => (&[Algorithm::ES256], DecodingKey::from_ec_der(bits)),
        KeyKind::P384 => (&[Algorithm::ES384], DecodingKey::from_ec_der(bits)),
    };
    Some(PinnedKey { id: hex::encode(digest(&SHA256, bits)), algorithms, key })
}

fn key_of_jwk(jwk: &jsonwebtoken::jwk::Jwk) -> Option<PinnedKey> {
    use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve};
    let algorithms: &'static [Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        _ => return None,
    };
    let text = serde_json::to_vec(&jwk.algorithm).ok()?;
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(PinnedKey { id: hex::encode(digest(&SHA256, &text)), algorithms, key })
}

/// A compact JWS by whatever key the PEM holds.
pub fn sign(payload: &impl Serialize, key_pem: &[u8]) -> Option<String> {
    let signed =
        |algorithm, key: &EncodingKey| jsonwebtoken::encode(&Header::new(algorithm), payload, key).ok();
    if let Ok(key) = EncodingKey::from_ec_pem(key_pem) {
        return [Algorithm::ES384, Algorithm::ES256].into_iter().find_map(|it| signed(it, &key));
    }
    signed(Algorithm::PS384, &EncodingKey::from_rsa_pem(key_pem).ok()?)
}
