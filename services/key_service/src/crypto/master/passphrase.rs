//! A random master key, wrapped under a passphrase: Argon2id (RFC 9106) makes a key of it, AES-256-GCM wraps.
//!
//! The passphrase can be changed without touching the database, because the master key is not made from it.

use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, RandomizedNonceKey};
use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{LEN, MasterKeyError, RawKey, raw, secret};
use crate::config::{SHORTEST_PASSPHRASE, Secret};
use crate::crypto::seal;

/// RFC 9106 section 4: the second recommended option, for machines that have less than 2 GiB to give.
const COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
/// A file cannot ask for more than this.
const MOST: Cost = Cost { memory_kib: 1024 * 1024, passes: 16, lanes: 16 };
const SALT_LEN: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// What lies in the file, as JSON; bytes as hex.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    version: u32,
    kdf: String,
    cost: Cost,
    salt: String,
    wrapped: String,
}

const VERSION: u32 = 1;
const KDF: &str = "argon2id";

/// The key in the file; nothing if there is no file.
pub fn read(file: &Path, source: &Secret) -> Result<Option<RawKey>, MasterKeyError> {
    let Some(text) = secret::contents(file)? else { return Ok(None) };
    let malformed = || MasterKeyError::Malformed { place: file.display().to_string() };
    let wrapped: Wrapped = serde_json::from_slice(&text).map_err(|_| malformed())?;
    let known = wrapped.version == VERSION && wrapped.kdf == KDF && wrapped.cost.is_bearable();
    let (salt, sealed) = match (hex::decode(&wrapped.salt), hex::decode(&wrapped.wrapped)) {
        (Ok(salt), Ok(sealed)) if known && salt.len() == SALT_LEN => (salt, sealed),
        _ => return Err(malformed()),
    };
    let key = derived(&passphrase(source)?, &salt, wrapped.cost).ok_or_else(malformed)?;
    let opened = seal::open(&key, &sealed, &binding(&salt, wrapped.cost));
    let opened = opened.map_err(|_| MasterKeyError::Passphrase { file: file.to_owned() })?;
    raw(&opened, file).map(Some)
}

/// Wraps a key and writes the file.
pub fn store(file: &Path, source: &Secret, master: &RawKey) -> Result<(), MasterKeyError> {
    let passphrase = passphrase(source)?;
    let length = passphrase.len();
    if length < SHORTEST_PASSPHRASE {
        let place = source.to_string();
        return Err(MasterKeyError::ShortPassphrase { place, length, least: SHORTEST_PASSPHRASE });
    }
    let mut salt = [0; SALT_LEN];
    rand::fill(&mut salt).expect("the system has random numbers");
    let key = derived(&passphrase, &salt, COST).expect("these are good parameters");
    let wrapped = Wrapped {
        version: VERSION,
        kdf: KDF.to_owned(),
        cost: COST,
        salt: hex::encode(salt),
        wrapped: hex::encode(seal::seal(&key, master.as_slice(), &binding(&salt, COST))),
    };
    let text = serde_json::to_string_pretty(&wrapped).expect("a struct of texts and numbers");
    secret::write(file, format!("{text}\n").as_bytes())
}

/// The text without the end of its line.
fn passphrase(source: &Secret) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
    let text =
        secret::read(source)?.ok_or_else(|| MasterKeyError::NoPassphrase { place: source.to_string() })?;
    Ok(Zeroizing::new(text.trim_ascii_end().to_vec()))
}

fn derived(passphrase: &[u8], salt: &[u8], cost: Cost) -> Option<RandomizedNonceKey> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(LEN)).ok()?;
    let mut key = Zeroizing::new([0; LEN]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, key.as_mut_slice())
        .ok()?;
    RandomizedNonceKey::new(&AES_256_GCM, key.as_slice()).ok()
}

/// The wrapping is bound to how its key was made.
fn binding(salt: &[u8], cost: Cost) -> Vec<u8> {
    let numbers = [VERSION, cost.memory_kib, cost.passes, cost.lanes].map(u32::to_le_bytes).concat();
    [b"casemate master key under a passphrase", numbers.as_slice(), salt].concat()
}

impl Cost {
    fn is_bearable(self) -> bool {
        self.memory_kib <= MOST.memory_kib && self.passes <= MOST.passes && self.lanes <= MOST.lanes
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        source: Secret,
    }

    impl Place {
        fn with(passphrase: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("passphrase");
            fs::write(&file, passphrase).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            Self { folder, source: Secret::File(file) }
        }

        fn say(&self, passphrase: &str) {
            fs::write(self.folder.path().join("passphrase"), passphrase).unwrap();
        }

        fn file(&self) -> std::path::PathBuf {
            self.folder.path().join("wrapped")
        }
    }

    #[test]
    fn the_passphrase_opens_and_another_does_not() {
        let place = Place::with("correct horse battery\n");
        let master = Zeroizing::new([7; LEN]);
        assert!(read(&place.file(), &place.source).unwrap().is_none());
        store(&place.file(), &place.source, &master).unwrap();
        assert!(read(&place.file(), &place.source).unwrap() == Some(master.clone()));
        let text = fs::read_to_string(place.file()).unwrap();
        assert!(!text.contains(&hex::encode(master.as_slice())));
        place.say("correct horse batterz");
        let error = read(&place.file(), &place.source).unwrap_err();
        assert!(matches!(error, MasterKeyError::Passphrase { .. }), "{error}");
    }

    #[test]
    fn a_changed_file_does_not_open() {
        let place = Place::with("correct horse battery");
        store(&place.file(), &place.source, &Zeroizing::new([7; LEN])).unwrap();
        let whole = fs::read_to_string(place.file()).unwrap();
        let salt: Wrapped = serde_json::from_str(&whole).unwrap();
        for (old, new) in [
            ("\"passes\": 3", "\"passes\": 2"),
            ("\"passes\": 3", "\"passes\": 17"),
            ("\"memoryKib\": 65536", "\"memoryKib\": 4294967295"),
            ("\"version\": 1", "\"version\": 2"),
            ("argon2id", "argon2i"),
            (salt.salt.as_str(), "00112233445566778899aabbccddeeff"),
            (salt.salt.as_str(), ""),
            ("\"kdf\"", "\"new\": 1, \"kdf\""),
        ] {
            fs::write(place.file(), whole.replace(old, new)).unwrap();
            assert!(read(&place.file(), &place.source).is_err(), "{new}");
        }
    }

    #[test]
    fn a_passphrase_that_is_short_or_missing_makes_no_key() {
        let place = Place::with("short");
        let master = Zeroizing::new([7; LEN]);
        let error = store(&place.file(), &place.source, &master).unwrap_err().to_string();
        assert!(error.ends_with("has 5 characters; it must have 12 at least"), "{error}");
        let none = Secret::Environment("CASEMATE_TEST_NO_SUCH_PASSPHRASE".to_owned());
        let error = store(&place.file(), &none, &master).unwrap_err().to_string();
        assert!(error.contains("no passphrase at the environment variable"), "{error}");
        assert!(!place.file().exists());
    }
}
