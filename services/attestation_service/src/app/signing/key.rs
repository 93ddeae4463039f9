//! One signing key with its self-signed certificate: making, storing, reading, signing.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use der::Decode as _;
use public_api::attestation_policy::TokenAlgorithm;
use public_api::encoding::{to_base64, to_base64url};
use public_api::jwk::Jwk;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, RsaKeySize};
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use token_verifier::rsa::PublicParts;

use super::{CertificateInHeader, SignerError};
use crate::app::secret_file;

/// A key that can sign, and what is published of it.
pub struct SigningKey {
    secret: Secret,
    headers: Headers,
    jwk: Jwk,
}

/// The protected headers of its tokens, in base64url.
struct Headers {
    plain: String,
    with_certificate: String,
    with_digest: String,
}

enum Secret {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaKeyPair>),
}

/// The files of the key with this number.
pub fn paths(directory: &Path, number: u64) -> (PathBuf, PathBuf) {
    (directory.join(format!("{number}.key")), directory.join(format!("{number}.pem")))
}

/// Makes key and certificate and writes them.
pub fn make(
    directory: &Path,
    number: u64,
    algorithm: TokenAlgorithm,
    issuer: &str,
) -> Result<(), SignerError> {
    let key = match algorithm {
        TokenAlgorithm::RS256 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        TokenAlgorithm::ES384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
    };
    let (key_path, certificate_path) = paths(directory, number);
    secret_file::write_new(&key_path, zeroize::Zeroizing::new(key.serialize_pem()).as_bytes())?;
    secret_file::write_new(&certificate_path, certificate(issuer, &key)?.as_bytes())?;
    Ok(())
}

fn certificate(issuer: &str, key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, issuer);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let year = this_year();
    parameters.not_before = rcgen::date_time_ymd(year, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(year + 20, 1, 1);
    Ok(parameters.self_signed(key)?.pem())
}

/// The year of the RFC 3339 text of now.
fn this_year() -> i32 {
    let now = jiff::Timestamp::now().to_string();
    now.get(..4).and_then(|year| year.parse().ok()).expect("a timestamp begins with its year")
}

impl SigningKey {
    /// Reads key and certificate; they must belong together and to the issuer.
    pub fn open(
        directory: &Path,
        number: u64,
        algorithm: TokenAlgorithm,
        issuer: &str,
    ) -> Result<Self, SignerError> {
        let (key_path, certificate_path) = paths(directory, number);
        let pem = secret_file::read(&key_path)?.ok_or(SignerError::Stored)?;
        let secret = Secret::from_pem(&pem, algorithm)?;
        let stored = secret_file::read(&certificate_path)?.ok_or(SignerError::Stored)?;
        let certificate =
            rustls_pki_types::CertificateDer::from_pem_slice(&stored).map_err(|_| SignerError::Stored)?;
        check_certificate(&certificate, issuer, secret.public_key())?;
        let jwk = public_jwk(&certificate, secret.public_key(), algorithm)?;
        let headers = Headers::of(algorithm, issuer, &certificate);
        Ok(Self { secret, headers, jwk })
    }

    /// What is published of it.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// A compact JWS (RFC 7515 section 3.1) over a JSON text.
    pub fn sign(&self, certificate: CertificateInHeader, payload: &[u8]) -> Result<String, SignerError> {
        let header = self.headers.with(certificate);
        let mut token = String::with_capacity(header.len() + payload.len() * 4 / 3 + 360);
        token.push_str(header);
        token.push('.');
        public_api::encoding::push_base64url(payload, &mut token);
        let signature = self.secret.sign(token.as_bytes()).map_err(|_| SignerError::Sign)?;
        token.push('.');
        public_api::encoding::push_base64url(&signature, &mut token);
        Ok(token)
    }
}

impl Headers {
    fn of(algorithm: TokenAlgorithm, issuer: &str, certificate: &[u8]) -> Self {
        let with = |more: Value| {
            let mut header = json!({
                "alg": algorithm.name(), "jku": format!("{issuer}/certs"), "kid": kid(certificate), "typ": "JWT",
            });
            for (name, value) in more.as_object().into_iter().flatten() {
                header[name] = value.clone();
            }
            to_base64url(header.to_string().as_bytes())
        };
        let digest = |algorithm| to_base64url(digest(algorithm, certificate).as_ref());
        Self {
            plain: with(json!({})),
            with_certificate: with(json!({"x5c": [to_base64(certificate)]})),
            with_digest: with(json!({"x5t": digest(&SHA1_FOR_LEGACY_USE_ONLY), "x5t#S256": digest(&SHA256)})),
        }
    }

    fn with(&self, certificate: CertificateInHeader) -> &str {
        match certificate {
            CertificateInHeader::None => &self.plain,
            CertificateInHeader::Whole => &self.with_certificate,
            CertificateInHeader::Digest => &self.with_digest,
        }
    }
}

impl Secret {
    fn from_pem(pem: &[u8], algorithm: TokenAlgorithm) -> Result<Self, SignerError> {
        let der =
            rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| SignerError::Stored)?;
        let der = der.secret_pkcs8_der();
        let secret = match algorithm {
            TokenAlgorithm::RS256 => RsaKeyPair::from_pkcs8(der).ok().map(|key| Self::Rsa(Box::new(key))),
            TokenAlgorithm::ES384 => EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der)
                .ok()
                .map(|key| Self::Ecdsa(Box::new(key))),
        };
        secret.ok_or(SignerError::Stored)
    }

    fn public_key(&self) -> &[u8] {
        match self {
            Self::Rsa(key) => key.public_key().as_ref(),
            Self::Ecdsa(key) => key.public_key().as_ref(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
            Self::Ecdsa(key) => Ok(key.sign(&random, message)?.as_ref().to_vec()),
        }
    }
}

/// Azure's key ids are 44 characters of standard base64; ours are the SHA-256 of the signing certificate.
fn kid(certificate: &[u8]) -> String {
    to_base64(digest(&SHA256, certificate).as_ref())
}

fn check_certificate(der: &[u8], issuer: &str, public_key: &[u8]) -> Result<(), SignerError> {
    let certificate = x509_cert::Certificate::from_der(der).map_err(|_| SignerError::Stored)?;
    let certificate = certificate.tbs_certificate();
    if certificate.subject_public_key_info().subject_public_key.raw_bytes() != public_key {
        return Err(SignerError::Stored);
    }
    let subject = certificate.subject().to_string();
    if subject == format!("CN={issuer}") { Ok(()) } else { Err(SignerError::OtherIssuer(issuer.to_owned())) }
}

fn public_jwk(certificate: &[u8], public_key: &[u8], algorithm: TokenAlgorithm) -> Result<Jwk, SignerError> {
    let jwk = Jwk {
        kid: Some(kid(certificate)),
        use_: Some("sig".to_owned()),
        alg: Some(algorithm.name().to_owned()),
        x5c: vec![to_base64(certificate)],
        ..Jwk::default()
    };
    match algorithm {
        TokenAlgorithm::RS256 => {
            let public = PublicParts::from_pkcs1(public_key).ok_or(SignerError::Stored)?;
            let (n, e) = (to_base64url(&public.modulus), to_base64url(&public.exponent));
            Ok(Jwk { kty: "RSA".to_owned(), n: Some(n), e: Some(e), ..jwk })
        }
        TokenAlgorithm::ES384 => {
            let (x, y) = point(public_key).ok_or(SignerError::Stored)?;
            let (crv, x, y) = (Some("P-384".to_owned()), Some(to_base64url(x)), Some(to_base64url(y)));
            Ok(Jwk { kty: "EC".to_owned(), crv, x, y, ..jwk })
        }
    }
}

/// The coordinates of an uncompressed point on P-384 (SEC 1 section 2.3.3).
fn point(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let coordinates = bytes.strip_prefix(&[4])?;
    (coordinates.len() == 96).then(|| coordinates.split_at(48))
}
