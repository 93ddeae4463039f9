//! The token signer of one provider: its keys, made and kept in a directory, and their rotation.

mod key;
mod schedule;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use policy::language::TokenProperties;
use public_api::attestation::Claims;
use public_api::attestation_policy::TokenAlgorithm;
use public_api::jwk::JwkSet;

use super::secret_file;
use key::SigningKey;
use schedule::KeyRecord;

/// How long a new key is published before it signs, in seconds: verifiers keep key sets for some minutes.
pub const PUBLISHED_AHEAD: i64 = 3600;
/// A key is rotated when it has signed for this long, in seconds: 90 days.
pub const ROTATED_AFTER: i64 = 90 * 86_400;
/// What a key covers is written down in steps of this many seconds, not for each token.
const COVER_STEP: i64 = 86_400;
const RECORDS_FILE: &str = "keys.json";

/// Why there is no signer, or no token.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Files of the data directory.
    #[error("reading or writing the token signing keys in the data directory")]
    File(#[from] std::io::Error),
    /// Making key or certificate.
    #[error("making a token signing key and its certificate")]
    Make(#[from] rcgen::Error),
    /// The stored files are no key and certificate.
    #[error("a stored token signing key, its certificate or the list of keys cannot be read")]
    Stored,
    /// The certificate is of another issuer.
    #[error(
        "the stored signing certificate is not for issuer {0}; move the data directory away to start afresh"
    )]
    OtherIssuer(String),
    /// Signing failed.
    #[error("signing a token")]
    Sign,
    /// Claims that are no JSON.
    #[error("writing the claims of a token")]
    Claims(#[from] serde_json::Error),
}

/// Signs tokens in the name of one issuer.
pub struct Signer {
    issuer: String,
    directory: PathBuf,
    keys: RwLock<Arc<Vec<Held>>>,
    /// Held by whoever changes files.
    changing: Mutex<()>,
}

/// How a token's header shows the signing certificate, beside the key's id (RFC 7515 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateInHeader {
    /// By the key's id and the key set's address (`kid`, `jku`) alone.
    None,
    /// Whole (`x5c`).
    Whole,
    /// By its digests (`x5t`, `x5t#S256`).
    Digest,
}

/// What a policy can ask of a token beside its claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenForm {
    /// Seconds.
    pub lifetime: i64,
    /// In the header.
    pub certificate: CertificateInHeader,
}

impl TokenForm {
    /// A policy's wishes over what is usual for the kind of evidence.
    pub fn of(wishes: TokenProperties, usual: i64, certificate: CertificateInHeader) -> Self {
        let lifetime = wishes.report_validity_in_minutes.map_or(usual, |minutes| i64::from(minutes) * 60);
        let certificate = if wishes.omit_x5c { CertificateInHeader::Digest } else { certificate };
        Self { lifetime, certificate }
    }
}

/// A key with its record.
#[derive(Clone)]
struct Held {
    record: KeyRecord,
    key: Arc<SigningKey>,
}

impl Signer {
    /// Opens the keys of `issuer` in `directory`; makes the first one.
    pub fn open(
        directory: &Path,
        issuer: &str,
        algorithm: TokenAlgorithm,
        now: i64,
    ) -> Result<Self, SignerError> {
        std::fs::create_dir_all(directory)?;
        let records = read_records(directory)?;
        let open = |record: KeyRecord| {
            let key = Arc::new(SigningKey::open(directory, record.number, record.algorithm, issuer)?);
            Ok::<_, SignerError>(Held { record, key })
        };
        let keys = records.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let signer = Self {
            issuer: issuer.to_owned(),
            directory: directory.to_owned(),
            keys: RwLock::new(Arc::new(keys)),
            changing: Mutex::new(()),
        };
        if signer.active(now).is_none() {
            signer.add_key(algorithm, now)?;
        }
        Ok(signer)
    }

    /// The issuer, without a slash at the end.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Algorithms under which tokens can verify now.
    pub fn algorithms(&self, now: i64) -> Vec<TokenAlgorithm> {
        let keys = self.keys();
        let mut algorithms: Vec<TokenAlgorithm> = Vec::new();
        for index in schedule::published(&records(&keys), now) {
            if let Some(held) = keys.get(index).filter(|held| !algorithms.contains(&held.record.algorithm)) {
                algorithms.push(held.record.algorithm);
            }
        }
        algorithms
    }

    /// The keys under which tokens verify, the signing one first.
    pub fn jwk_set(&self, now: i64) -> JwkSet {
        let keys = self.keys();
        let shown = schedule::published(&records(&keys), now);
        JwkSet {
            keys: shown.into_iter().filter_map(|index| Some(keys.get(index)?.key.jwk().clone())).collect(),
        }
    }

    /// A signed compact JWS over the claims, which hold until `expires`.
    pub fn sign(&self, claims: &Claims, now: i64, expires: i64) -> Result<String, SignerError> {
        let form = TokenForm { lifetime: expires - now, certificate: CertificateInHeader::None };
        self.sign_as(form, claims, now)
    }

    /// The same in the form that a policy asks for.
    pub fn sign_as(&self, form: TokenForm, claims: &Claims, now: i64) -> Result<String, SignerError> {
        let expires = now + form.lifetime;
        let held = self.active(now).ok_or(SignerError::Stored)?;
        if held.record.covers_until < expires {
            self.cover(held.record.number, expires + COVER_STEP)?;
        }
        held.key.sign(form.certificate, &serde_json::to_vec(claims)?)
    }

    /// Makes a new key, which signs from `active_from` on (Unix seconds). Returns its id.
    pub fn add_key(&self, algorithm: TokenAlgorithm, active_from: i64) -> Result<String, SignerError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys = Vec::clone(&self.keys());
        let number = next_number(&self.directory)?;
        key::make(&self.directory, number, algorithm, &self.issuer)?;
        let key = Arc::new(SigningKey::open(&self.directory, number, algorithm, &self.issuer)?);
        let id = key.jwk().kid.clone().unwrap_or_default();
        // A key that was to come is superseded by one that comes earlier: order is by time, then by number.
        keys.retain(|held| held.record.active_from <= active_from);
        keys.push(Held { record: KeyRecord { number, algorithm, active_from, covers_until: 0 }, key });
        self.replace(keys)?;
        Ok(id)
    }

    /// Makes the next key if the newest one has signed for long enough.
    pub fn rotate_if_due(&self, now: i64) -> Result<(), SignerError> {
        let newest = self.keys().last().map(|held| held.record.clone());
        match newest {
            Some(record) if record.active_from + ROTATED_AFTER <= now => {
                self.add_key(record.algorithm, now + PUBLISHED_AHEAD).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn keys(&self) -> Arc<Vec<Held>> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn active(&self, now: i64) -> Option<Held> {
        let keys = self.keys();
        let index = keys.iter().rposition(|held| held.record.active_from <= now)?;
        keys.get(index).cloned()
    }

    /// Writes down, before the token leaves, that the key must stay published for it.
    fn cover(&self, number: u64, until: i64) -> Result<(), SignerError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys = Vec::clone(&self.keys());
        for held in &mut keys {
            if held.record.number == number {
                held.record.covers_until = held.record.covers_until.max(until);
            }
        }
        self.replace(keys)
    }

    fn replace(&self, keys: Vec<Held>) -> Result<(), SignerError> {
        let text = serde_json::to_vec_pretty(&records(&keys))?;
        secret_file::replace(&self.directory.join(RECORDS_FILE), &text)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }
}

fn records(keys: &[Held]) -> Vec<KeyRecord> {
    keys.iter().map(|held| held.record.clone()).collect()
}

fn read_records(directory: &Path) -> Result<Vec<KeyRecord>, SignerError> {
    match secret_file::read(&directory.join(RECORDS_FILE))? {
        Some(text) => serde_json::from_slice(&text).map_err(|_| SignerError::Stored),
        None => Ok(Vec::new()),
    }
}

/// A number that no file has: a crash may have left a key without its record.
fn next_number(directory: &Path) -> std::io::Result<u64> {
    let mut next = 1;
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = Path::new(&name).file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        next = next.max(number.map_or(1, |number| number + 1));
    }
    Ok(next)
}

#[cfg(test)]
mod tests;
