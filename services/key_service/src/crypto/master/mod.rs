//! Where the master key comes from: as it is in a file, an environment variable or a credential; wrapped under a
//! passphrase; or sealed to this machine's TPM. Made anew only where there is neither a key nor a database.

mod error;
mod passphrase;
mod secret;
mod tpm;

use std::path::Path;

use aws_lc_rs::rand;
use zeroize::Zeroizing;

pub use error::MasterKeyError;

use crate::config::{MasterKeyConfig, MasterKeySource, Secret};

/// Bytes of a master key.
pub const LEN: usize = 32;

/// A master key as it is.
pub type RawKey = Zeroizing<[u8; LEN]>;

/// The key that a database was sealed under (`expected`), or for a new database the one that is there, or a new one.
/// Whether it *is* the one that is expected is for the caller to see.
pub fn obtain(config: &MasterKeyConfig, expected: Option<&str>) -> Result<RawKey, MasterKeyError> {
    let source = &config.source;
    match (read(source)?, expected) {
        (Some(key), _) => Ok(key),
        (None, Some(id)) => Err(MasterKeyError::Lost { place: source.to_string(), id: id.to_owned() }),
        (None, None) if config.create => make(source),
        (None, None) => Err(MasterKeyError::Missing { place: source.to_string() }),
    }
}

/// Puts a key where a configuration wants it, for a key that is moved. There must be none yet.
pub fn store(source: &MasterKeySource, key: &RawKey) -> Result<(), MasterKeyError> {
    match source {
        MasterKeySource::Plain(Secret::File(file)) => secret::write(file, &hexed(key)),
        MasterKeySource::Plain(_) => Err(MasterKeyError::NotWritable { place: source.to_string() }),
        MasterKeySource::Passphrase { wrapped, passphrase } => passphrase::store(wrapped, passphrase, key),
        MasterKeySource::Tpm { sealed, device, pcrs } => tpm::store(sealed, device, pcrs, key),
    }
}

fn read(source: &MasterKeySource) -> Result<Option<RawKey>, MasterKeyError> {
    match source {
        MasterKeySource::Plain(secret) => {
            secret::read(secret)?.map(|text| unhexed(source, &text)).transpose()
        }
        MasterKeySource::Passphrase { wrapped, passphrase } => passphrase::read(wrapped, passphrase),
        MasterKeySource::Tpm { sealed, device, .. } => tpm::read(sealed, device),
    }
}

fn make(source: &MasterKeySource) -> Result<RawKey, MasterKeyError> {
    let mut key = Zeroizing::new([0; LEN]);
    rand::fill(key.as_mut_slice()).expect("the system has random numbers");
    store(source, &key)?;
    tracing::info!(place = %source, "made a new master key; without it no stored key opens");
    Ok(key)
}

fn unhexed(source: &MasterKeySource, text: &[u8]) -> Result<RawKey, MasterKeyError> {
    let mut key = Zeroizing::new([0; LEN]);
    hex::decode_to_slice(text.trim_ascii_end(), key.as_mut_slice())
        .map_err(|_| MasterKeyError::Malformed { place: source.to_string() })?;
    Ok(key)
}

fn hexed(key: &RawKey) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(vec![0; 2 * LEN]);
    hex::encode_to_slice(key.as_slice(), &mut text).expect("the buffer has twice the length");
    text.push(b'\n');
    text
}

/// A key from the 32 bytes that something opened to.
fn raw(bytes: &[u8], file: &Path) -> Result<RawKey, MasterKeyError> {
    let mut key = Zeroizing::new([0; LEN]);
    if bytes.len() != LEN {
        return Err(MasterKeyError::Malformed { place: file.display().to_string() });
    }
    key.copy_from_slice(bytes);
    Ok(key)
}
