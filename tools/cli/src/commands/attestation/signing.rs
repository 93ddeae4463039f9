//! Policy documents as the service takes them: a JWS (RFC 7515 section 3.1), unsigned or by a key with its certificate.
//!
//! What it is not: a check. Whether a signature counts is the service's to say.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256,
};
use public_api::encoding::{to_base64, to_base64url};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Who signs.
#[derive(Debug, Default, clap::Args)]
pub struct Signing {
    /// Sign with this private key (PEM, PKCS #8; RSA, P-256 or P-384).
    #[arg(long, value_name = "KEY", requires = "certificate")]
    signed_by: Option<PathBuf>,
    /// The key's certificate (PEM).
    #[arg(long, value_name = "PEM", requires = "signed_by")]
    certificate: Option<PathBuf>,
}

enum Secret {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
    P384(Box<EcdsaKeyPair>),
}

impl Signing {
    /// Whether a key was given.
    pub fn is_signed(&self) -> bool {
        self.signed_by.is_some()
    }

    /// A policy text. A file that holds a JWS already is sent as it is.
    pub fn policy(&self, text: &str) -> Result<String> {
        if !is_jws(text) {
            return self
                .jws(json!({"AttestationPolicy": to_base64url(text.as_bytes())}).to_string().as_bytes());
        }
        if self.is_signed() {
            let hint = "give the policy's text together with the key, or the JWS alone";
            return Err(Failure::you("the policy is a JWS already and cannot be signed again", hint));
        }
        Ok(text.trim().to_owned())
    }

    /// A document without a payload: back to the shipped policy.
    pub fn empty(&self) -> Result<String> {
        self.jws(b"")
    }

    /// A change of policy signers.
    pub fn certificate_change(&self, certificate: &[u8]) -> Result<String> {
        let jwk = json!({"kty": "RSA", "x5c": [to_base64(certificate)]});
        self.jws(json!({"policyCertificate": jwk}).to_string().as_bytes())
    }

    fn jws(&self, payload: &[u8]) -> Result<String> {
        let (Some(key), Some(certificate)) = (&self.signed_by, &self.certificate) else {
            return Ok(format!("{}.{}.", to_base64url(br#"{"alg":"none"}"#), to_base64url(payload)));
        };
        let (secret, certificate) = (Secret::read(key)?, certificate_der(certificate)?);
        let header = json!({"alg": secret.algorithm(), "x5c": [to_base64(&certificate)]});
        sign(&secret, &header, payload)
    }
}

fn sign(secret: &Secret, header: &Value, payload: &[u8]) -> Result<String> {
    let message = format!("{}.{}", to_base64url(header.to_string().as_bytes()), to_base64url(payload));
    let signature = secret.sign(message.as_bytes()).map_err(|_| anyhow::anyhow!("the key does not sign"))?;
    Ok(format!("{message}.{}", to_base64url(&signature)))
}

/// A policy has spaces and semicolons; a JWS has neither.
fn is_jws(text: &str) -> bool {
    let text = text.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.matches('.').count() == 2 && text.chars().all(allowed)
}

/// The first certificate of a PEM file.
pub fn certificate_der(path: &Path) -> Result<Vec<u8>> {
    let pem = super::read_text(path)?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| {
        Failure::you(format!("{}: {error}", path.display()), "name a PEM file with a certificate")
    })?;
    Ok(der.to_vec())
}

impl Secret {
    fn read(path: &Path) -> Result<Self> {
        let pem = Zeroizing::new(std::fs::read(path).with_context(|| format!("reading {}", path.display()))?);
        let wrong = || {
            let message = format!("{} holds no RSA, P-256 or P-384 key in PKCS #8", path.display());
            Failure::you(message, "`openssl pkcs8 -topk8 -nocrypt` brings a key into this form")
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| wrong())?;
        let der = der.secret_pkcs8_der();
        let rsa = RsaKeyPair::from_pkcs8(der).ok().map(|key| Self::Rsa(Box::new(key)));
        let p256 = || {
            Some(Self::P256(Box::new(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?)))
        };
        let p384 = || {
            Some(Self::P384(Box::new(EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der).ok()?)))
        };
        rsa.or_else(p256).or_else(p384).ok_or_else(wrong)
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
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
            Self::P256(key) | Self::P384(key) => Ok(key.sign(&random, message)?.as_ref().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_not_taken_for_a_jws() {
        for jws in ["eyJhbGciOiJub25lIn0..", " a.b.c\n", "a-_.b.c"] {
            assert!(is_jws(jws), "{jws}");
        }
        for policy in
            ["", "version=1.0; authorizationrules { => permit(); };", "a.b", "a.b.c.d", "version=1.0.0;"]
        {
            assert!(!is_jws(policy), "{policy}");
        }
    }

    #[test]
    fn an_unsigned_document_has_no_signature_and_a_jws_is_sent_as_it_is() {
        let nobody = Signing::default();
        let jws = nobody.policy("version=1.0;").unwrap();
        assert_eq!(super::super::payload(&jws).unwrap()["AttestationPolicy"], to_base64url(b"version=1.0;"));
        assert!(jws.ends_with('.'));
        assert_eq!(nobody.policy(&format!("{jws}\n")).unwrap(), jws);
        assert_eq!(nobody.empty().unwrap(), "eyJhbGciOiJub25lIn0..");
        let somebody = Signing { signed_by: Some("key".into()), certificate: Some("certificate".into()) };
        assert!(somebody.policy(&jws).unwrap_err().to_string().contains("JWS already"));
    }
}
