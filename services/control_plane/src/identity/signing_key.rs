//! The RSA key that signs tokens, and other secrets that must survive a restart: made once, kept in a file of mode 0600.
//!
//! A new key at each start would strand clients that cache tokens, so the file is written before the key is used.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk as TokenJwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use public_api::encoding::to_base64;
use public_api::jwk::Jwk;
use zeroize::Zeroizing;

/// The signing key with its public forms.
#[derive(Clone)]
pub struct SigningKey {
    /// Signs.
    pub encoding: EncodingKey,
    /// Verifies.
    pub decoding: DecodingKey,
    /// As `/common/discovery/keys` shows it.
    pub public: Jwk,
    /// RFC 7638 thumbprint.
    pub kid: String,
}

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// The file cannot be read or written.
    #[error("cannot keep a secret in {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The library could not make a key.
    #[error("cannot generate an RSA key")]
    Generate,
    /// The file holds something else.
    #[error("{path} does not hold an RSA key in PEM")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
}

impl SigningKey {
    /// Reads the key of an installation, or makes it.
    pub fn load(path: &Path) -> Result<Self, SigningKeyError> {
        let pem = load_secret(path, generate)?;
        let parse = |source| SigningKeyError::Parse { path: path.to_owned(), source };
        let encoding = EncodingKey::from_rsa_pem(&pem).map_err(parse)?;
        let token_jwk = TokenJwk::from_encoding_key(&encoding, Algorithm::RS256).map_err(parse)?;
        let kid = token_jwk.thumbprint(ThumbprintHash::SHA256).map_err(parse)?;
        let decoding = DecodingKey::from_jwk(&token_jwk).map_err(parse)?;
        let AlgorithmParameters::RSA(rsa) = token_jwk.algorithm else {
            return Err(SigningKeyError::Generate);
        };
        let public = Jwk {
            kid: Some(kid.clone()),
            kty: "RSA".to_owned(),
            n: Some(rsa.n),
            e: Some(rsa.e),
            use_: Some("sig".to_owned()),
            alg: Some("RS256".to_owned()),
            ..Jwk::default()
        };
        Ok(Self { encoding, decoding, public, kid })
    }
}

fn generate() -> Result<Zeroizing<Vec<u8>>, SigningKeyError> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| SigningKeyError::Generate)?;
    let der = pair.as_der().map_err(|_| SigningKeyError::Generate)?;
    let text = Zeroizing::new(to_base64(der.as_ref()));
    let mut pem = Zeroizing::new(Vec::with_capacity(text.len() * 2));
    pem.extend_from_slice(b"-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    Ok(pem)
}

/// Reads a secret file; makes it with `generate` if it is not there yet. A crash leaves the old state or the new one.
pub fn load_secret(
    path: &Path,
    generate: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, SigningKeyError>,
) -> Result<Zeroizing<Vec<u8>>, SigningKeyError> {
    let file = |source| SigningKeyError::File { path: path.to_owned(), source };
    match std::fs::read(path) {
        Ok(bytes) => return Ok(Zeroizing::new(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(error)),
    }
    let secret = generate()?;
    let draft = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut handle =
        options.write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(file)?;
    handle.write_all(&secret).and_then(|()| handle.sync_all()).map_err(file)?;
    std::fs::rename(&draft, path).map_err(file)?;
    Ok(secret)
}
