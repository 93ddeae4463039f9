//! The signing keys of an issuer: fetched from a pinned place, kept for a while, fetched again for an unknown key id.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use der::Decode as _;
use jsonwebtoken::DecodingKey;
use public_api::encoding::from_base64_any;
use public_api::jwk::{Jwk, JwkSet};
use tokio::sync::Mutex;
use url::Url;
use x509_cert::Certificate;

use crate::rsa::PublicParts;

/// Keys older than this are fetched again.
const REFRESH_AFTER: Duration = Duration::from_secs(600);
/// Keys that cannot be fetched again are used up to this age.
const USABLE_FOR: Duration = Duration::from_secs(3600);
/// An unknown key id causes no more than one fetch in this time.
const REFETCH_INTERVAL: Duration = Duration::from_secs(1);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 1 << 20;

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// Fetched over HTTPS, trusting only the certificates in `ca`.
    Url {
        /// The address.
        url: Url,
        /// PEM file.
        ca: PathBuf,
    },
    /// Read from a file.
    File(PathBuf),
}

/// A source that makes no sense: the configuration key that is meant, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {problem}")]
pub struct SourceError {
    /// `jwks_url`, `jwks_file` or `ca`.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl JwksSource {
    /// From what a configuration gives: an address with the certificates to trust there, or a file.
    pub fn from_parts(
        url: Option<Url>,
        file: Option<&PathBuf>,
        ca: Option<&PathBuf>,
    ) -> Result<Self, SourceError> {
        let wrong = |key, problem| Err(SourceError { key, problem });
        match (url, file) {
            (Some(_), Some(_)) => wrong("jwks_file", "give either `jwks_url` or `jwks_file`"),
            (None, None) => wrong("jwks_url", "either `jwks_url` or `jwks_file` is needed"),
            (None, Some(file)) => Ok(Self::File(file.clone())),
            (Some(url), None) if url.scheme() != "https" => wrong("jwks_url", "expected https"),
            (Some(url), None) => match ca {
                Some(ca) => Ok(Self::Url { url, ca: ca.clone() }),
                None => wrong("ca", "needed to trust `jwks_url`"),
            },
        }
    }
}

/// Why the keys of an issuer are not known.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The trusted certificates or the client could not be set up.
    #[error("could not set up the connection to {url}")]
    Setup {
        /// Where the keys are.
        url: Url,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer.
    #[error("could not fetch the signing keys from {url}")]
    Fetch {
        /// Where the keys are.
        url: Url,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The file cannot be read.
    #[error("could not read the signing keys in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Not a JWK set.
    #[error("the signing keys from {0} are not a JWK set")]
    Malformed(String),
    /// The last attempt failed a moment ago.
    #[error("the signing keys could not be fetched a moment ago")]
    JustFailed,
}

enum Place {
    Url { url: Url, client: reqwest::Client },
    File(PathBuf),
}

struct Snapshot {
    keys: HashMap<String, Arc<DecodingKey>>,
    taken: Instant,
}

/// The keys of one issuer.
pub struct Jwks {
    place: Place,
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    last_attempt: Mutex<Option<Instant>>,
}

impl Jwks {
    /// Prepares; fetches nothing yet.
    pub fn new(source: &JwksSource) -> Result<Self, JwksError> {
        let place = match source {
            JwksSource::File(path) => Place::File(path.clone()),
            JwksSource::Url { url, ca } => Place::Url { url: url.clone(), client: client(url, ca)? },
        };
        Ok(Self { place, snapshot: RwLock::new(None), last_attempt: Mutex::new(None) })
    }

    /// The key with this id, or `None` if the issuer has none.
    pub async fn key(&self, kid: &str) -> Result<Option<Arc<DecodingKey>>, JwksError> {
        if let Some(key) = self.known(kid, REFRESH_AFTER) {
            return Ok(Some(key));
        }
        let mut last_attempt = self.last_attempt.lock().await;
        if let Some(key) = self.known(kid, REFRESH_AFTER) {
            return Ok(Some(key));
        }
        if last_attempt.is_some_and(|at| at.elapsed() < REFETCH_INTERVAL) {
            return self.fallback(kid, JwksError::JustFailed);
        }
        *last_attempt = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => {
                let key = keys.get(kid).cloned();
                self.replace(Snapshot { keys, taken: Instant::now() });
                Ok(key)
            }
            Err(error) => self.fallback(kid, error),
        }
    }

    /// What is known without fetching: the key, or its absence if the snapshot is young, or `error`.
    fn fallback(&self, kid: &str, error: JwksError) -> Result<Option<Arc<DecodingKey>>, JwksError> {
        if let Some(key) = self.known(kid, USABLE_FOR) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "using signing keys that could not be refreshed"
            );
            return Ok(Some(key));
        }
        if self.current(REFETCH_INTERVAL * 2).is_some() { Ok(None) } else { Err(error) }
    }

    fn known(&self, kid: &str, max_age: Duration) -> Option<Arc<DecodingKey>> {
        self.current(max_age)?.keys.get(kid).cloned()
    }

    fn current(&self, max_age: Duration) -> Option<Arc<Snapshot>> {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        (snapshot.taken.elapsed() < max_age).then_some(snapshot)
    }

    fn replace(&self, snapshot: Snapshot) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(snapshot));
    }

    async fn fetch(&self) -> Result<HashMap<String, Arc<DecodingKey>>, JwksError> {
        match &self.place {
            Place::File(path) => {
                let bytes = tokio::fs::read(path)
                    .await
                    .map_err(|source| JwksError::Read { path: path.clone(), source })?;
                parsed(&bytes, &path.display().to_string())
            }
            Place::Url { url, client } => {
                let bytes = download(client, url).await?;
                parsed(&bytes, url.as_str())
            }
        }
    }
}

fn client(url: &Url, ca: &Path) -> Result<reqwest::Client, JwksError> {
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| JwksError::Setup { url: url.clone(), source };
    let pem = std::fs::read(ca).map_err(|error| failed(error.into()))?;
    let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.into()))?;
    reqwest::Client::builder()
        .tls_certs_only(roots)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(FETCH_TIMEOUT)
        .build()
        .map_err(|error| failed(error.into()))
}

async fn download(client: &reqwest::Client, url: &Url) -> Result<Vec<u8>, JwksError> {
    let failed = |source| JwksError::Fetch { url: url.clone(), source };
    let mut response =
        client.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > MAX_BYTES {
            return Err(JwksError::Malformed(url.to_string()));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The RSA signing keys of a JWK set, by id. Entries of other kinds are left out, not refused: sets grow.
fn parsed(bytes: &[u8], place: &str) -> Result<HashMap<String, Arc<DecodingKey>>, JwksError> {
    let set: JwkSet = serde_json::from_slice(bytes).map_err(|_| JwksError::Malformed(place.to_owned()))?;
    let usable = set.keys.iter().filter_map(|jwk| {
        let kid = jwk.kid.clone()?;
        let parts = signing_key(jwk)?;
        Some((kid, Arc::new(DecodingKey::from_rsa_raw_components(&parts.modulus, &parts.exponent))))
    });
    Ok(usable.collect())
}

fn signing_key(jwk: &Jwk) -> Option<PublicParts> {
    let signs = jwk.use_.as_deref().is_none_or(|purpose| purpose == "sig");
    let rs256 = jwk.alg.as_deref().is_none_or(|alg| alg == "RS256");
    if jwk.kty != "RSA" || !signs || !rs256 {
        return None;
    }
    match (&jwk.n, &jwk.e, jwk.x5c.first()) {
        (Some(modulus), Some(exponent), _) => {
            Some(PublicParts { modulus: unsigned(modulus)?, exponent: unsigned(exponent)? })
        }
        (None, None, Some(certificate)) => from_certificate(certificate),
        _ => None,
    }
}

/// A big-endian number; leading zeros, which some issuers send, are dropped.
fn unsigned(text: &str) -> Option<Vec<u8>> {
    let bytes = from_base64_any(text).ok()?;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes.get(start..)?.to_vec())
}

fn from_certificate(base64: &str) -> Option<PublicParts> {
    let certificate = Certificate::from_der(&from_base64_any(base64).ok()?).ok()?;
    let info = certificate.tbs_certificate().subject_public_key_info();
    PublicParts::from_pkcs1(info.subject_public_key.as_bytes()?)
}
