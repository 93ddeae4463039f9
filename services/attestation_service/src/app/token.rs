//! The token signer: an RSA key with a self-signed certificate, made at the first start and kept.

use std::path::Path;

use der::asn1::UintRef;
use der::{Decode as _, Sequence};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use public_api::attestation::Claims;
use public_api::encoding::{to_base64, to_base64url};
use public_api::jwk::{Jwk, JwkSet};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, RsaKeySize};
use rustls_pki_types::pem::PemObject as _;

use super::secret_file;

const KEY_FILE: &str = "token-signing.key";
const CERTIFICATE_FILE: &str = "token-signing.pem";

/// Signs tokens in the name of one issuer.
pub struct Signer {
    issuer: String,
    kid: String,
    key: EncodingKey,
    jwk: Jwk,
}

/// Why there is no signer.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Files of the data directory.
    #[error("reading or writing the token signing key in the data directory")]
    File(#[from] std::io::Error),
    /// Making key or certificate.
    #[error("making the token signing key and its certificate")]
    Make(#[from] rcgen::Error),
    /// The stored files are no key and certificate.
    #[error("the stored token signing key or its certificate cannot be read")]
    Stored,
    /// The certificate is of another issuer.
    #[error(
        "the stored signing certificate is not for issuer {0}; move the data directory away to start afresh"
    )]
    OtherIssuer(String),
    /// Signing failed.
    #[error("signing a token")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// RFC 8017 A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

impl Signer {
    /// Opens or makes the signing key of `issuer` in `directory`.
    pub fn open(directory: &Path, issuer: &str) -> Result<Self, SignerError> {
        let key_path = directory.join(KEY_FILE);
        if secret_file::read(&key_path)?.is_none() {
            let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?;
            secret_file::write_new(&key_path, zeroize::Zeroizing::new(key.serialize_pem()).as_bytes())?;
        }
        let pem = secret_file::read(&key_path)?.ok_or(SignerError::Stored)?;
        let pem_text = std::str::from_utf8(&pem).map_err(|_| SignerError::Stored)?;
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(pem_text, &rcgen::PKCS_RSA_SHA256)
            .map_err(|_| SignerError::Stored)?;
        let certificate_path = directory.join(CERTIFICATE_FILE);
        if secret_file::read(&certificate_path)?.is_none() {
            secret_file::write_new(&certificate_path, certificate(issuer, &key)?.as_bytes())?;
        }
        let stored = secret_file::read(&certificate_path)?.ok_or(SignerError::Stored)?;
        let der =
            rustls_pki_types::CertificateDer::from_pem_slice(&stored).map_err(|_| SignerError::Stored)?;
        check_certificate(&der, issuer, &key)?;
        Ok(Self {
            issuer: issuer.to_owned(),
            kid: kid(&der),
            key: EncodingKey::from_rsa_pem(&pem)?,
            jwk: public_jwk(&der, key.public_key_raw())?,
        })
    }

    /// The issuer, without a slash at the end.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The keys under which tokens verify.
    pub fn jwk_set(&self) -> JwkSet {
        JwkSet { keys: vec![self.jwk.clone()] }
    }

    /// A signed compact JWS over the claims.
    pub fn sign(&self, claims: &Claims) -> Result<String, SignerError> {
        let header = Header {
            kid: Some(self.kid.clone()),
            jku: Some(format!("{}/certs", self.issuer)),
            ..Header::new(Algorithm::RS256)
        };
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }
}

/// Azure's key ids are 44 characters of standard base64; ours are the SHA-256 of the signing certificate.
fn kid(certificate: &[u8]) -> String {
    to_base64(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate).as_ref())
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

fn check_certificate(der: &[u8], issuer: &str, key: &KeyPair) -> Result<(), SignerError> {
    let certificate = x509_cert::Certificate::from_der(der).map_err(|_| SignerError::Stored)?;
    let certificate = certificate.tbs_certificate();
    let certified = certificate.subject_public_key_info().subject_public_key.raw_bytes();
    if certified != key.public_key_raw() {
        return Err(SignerError::Stored);
    }
    let subject = certificate.subject().to_string();
    if subject == format!("CN={issuer}") { Ok(()) } else { Err(SignerError::OtherIssuer(issuer.to_owned())) }
}

fn public_jwk(certificate: &[u8], public_key: &[u8]) -> Result<Jwk, SignerError> {
    let public = RsaPublicKey::from_der(public_key).map_err(|_| SignerError::Stored)?;
    Ok(Jwk {
        kid: Some(kid(certificate)),
        kty: "RSA".to_owned(),
        n: Some(to_base64url(public.modulus.as_bytes())),
        e: Some(to_base64url(public.exponent.as_bytes())),
        use_: Some("sig".to_owned()),
        alg: Some("RS256".to_owned()),
        x5c: vec![to_base64(certificate)],
        ..Jwk::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::{Value, json};
    use std::os::unix::fs::PermissionsExt as _;

    const ISSUER: &str = "https://127.0.0.1:7301";

    fn claims() -> Claims {
        let claims = json!({"iss": ISSUER, "exp": 4_000_000_000_u64, "x": 1});
        claims.as_object().expect("an object").clone()
    }

    #[test]
    fn a_token_verifies_under_the_published_key_and_the_certificate() {
        let directory = tempfile::tempdir().expect("a directory");
        let signer = Signer::open(directory.path(), ISSUER).expect("opened");
        let token = signer.sign(&claims()).expect("signed");
        let header = jsonwebtoken::decode_header(&token).expect("a header");
        let jwk = &signer.jwk_set().keys[0];
        assert_eq!(header.kid, jwk.kid);
        assert_eq!((header.kid.map(|kid| kid.len()), header.typ.as_deref()), (Some(44), Some("JWT")));
        assert_eq!(header.jku.as_deref(), Some("https://127.0.0.1:7301/certs"));
        let key = DecodingKey::from_rsa_components(jwk.n.as_ref().unwrap(), jwk.e.as_ref().unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[ISSUER]);
        let decoded = jsonwebtoken::decode::<Value>(&token, &key, &validation).expect("verifies");
        assert_eq!(decoded.claims["x"], json!(1));
        let der = public_api::encoding::from_base64_any(&jwk.x5c[0]).expect("base64");
        let certificate = x509_cert::Certificate::from_der(&der).expect("a certificate");
        assert_eq!(certificate.tbs_certificate().subject().to_string(), format!("CN={ISSUER}"));
        assert_eq!(certificate.tbs_certificate().issuer(), certificate.tbs_certificate().subject());
    }

    #[test]
    fn the_key_is_kept_private_and_survives_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Signer::open(directory.path(), ISSUER).expect("opened").jwk_set();
        let second = Signer::open(directory.path(), ISSUER).expect("opened again").jwk_set();
        assert_eq!(first, second);
        let mode = std::fs::metadata(directory.path().join(KEY_FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn files_of_another_issuer_or_key_are_not_used() {
        let directory = tempfile::tempdir().expect("a directory");
        Signer::open(directory.path(), ISSUER).expect("opened");
        let other = Signer::open(directory.path(), "https://other.example").err().expect("must be refused");
        assert!(matches!(other, SignerError::OtherIssuer(_)), "{other}");
        std::fs::remove_file(directory.path().join(KEY_FILE)).expect("removed");
        let foreign = Signer::open(directory.path(), ISSUER).err().expect("must be refused");
        assert!(matches!(foreign, SignerError::Stored), "{foreign}");
        std::fs::write(directory.path().join(CERTIFICATE_FILE), b"nonsense").expect("written");
        assert!(Signer::open(directory.path(), ISSUER).is_err());
    }
}
