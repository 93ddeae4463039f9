//! The VM's state (TPM, boot-region table, keys) in a VMGS container that the host stores and can neither read nor forge.
//!
//! Keys, from the outside in: the key-encryption key (released by the key service) unwraps the data store key of this
//! *generation*; that opens the metadata key in the header; that the extended file table with one key for each file.
//! Every write of a file takes a fresh key, every commit a fresh metadata key, every generation a fresh data store key.
//!
//! VM id, generation and the name of the key-encryption key stand in clear in a file of their own, because they are needed
//! before anything can be unlocked; an encrypted manifest repeats them, with size and digest of every other file, so that files of two states do not mix.
//!
//! ```text
//! LockedState::open -- vm id, generation --> unlock(kek) --> GuestState -- commit / advance --> durable
//! ```
//!
//! A commit writes into free blocks, syncs, writes the header that is not in use, and syncs: after a crash either the
//! old or the new state is there. What this cannot see is the host putting back a *whole* older state: of an older
//! generation the caller learns from [`LockedState::generation`] and the key service; an older commit of the same
//! generation is what a power loss before the newer one would have left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::crypto;
use crate::secret::Secret;
use crate::storage::Storage;

mod format;
mod key_protector;
mod open;
mod write;

pub use key_protector::Kek;
use key_protector::{KekPublic, KeyProtector};
pub use open::LockedState;

/// The files that callers keep. Numbers below 32 are those of VMGS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FileId {
    /// Firmware variables.
    BiosNvram = 1,
    /// The TPM's permanent state.
    TpmNvram = 3,
    /// Attestation data of the agent.
    Attest = 5,
    /// The table of [`crate::boot_region`].
    BootRegionTable = 48,
    /// The approved Secure Boot state (JSON).
    SecureBoot = 49,
    /// The paravisor's own record (JSON).
    Record = 50,
}

const KEY_PROTECTOR: u8 = 6;
const IDENTITY: u8 = 46;
const MANIFEST: u8 = 47;
const CALLERS_FILES: [FileId; 6] = [
    FileId::BiosNvram,
    FileId::TpmNvram,
    FileId::Attest,
    FileId::BootRegionTable,
    FileId::SecureBoot,
    FileId::Record,
];

/// New contents of files; files that are not named stay as they are.
pub type Changes = BTreeMap<FileId, Zeroizing<Vec<u8>>>;

/// Why a guest state cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file could not be read or written.
    #[error("reading or writing the guest state's file")]
    Io(#[from] io::Error),
    /// No header of the container.
    #[error("the file is not a guest state: neither of its two headers is valid")]
    NotGuestState,
    /// The file ends before something it should hold.
    #[error("the guest state is truncated: its file ends before the contents that its table names")]
    Truncated,
    /// Bytes are not those that were written.
    #[error("the guest state was tampered with: its {what} does not match what was recorded")]
    Tampered {
        /// The part.
        what: &'static str,
    },
    /// It belongs to another VM.
    #[error("the guest state belongs to another VM: {found}, not {expected}")]
    OtherVm {
        /// This VM.
        expected: Uuid,
        /// The VM it names.
        found: Uuid,
    },
    /// The generation in clear is not the sealed one.
    #[error("the guest state claims generation {clear}, but was sealed as generation {sealed}")]
    GenerationMismatch {
        /// In clear.
        clear: u64,
        /// In the encrypted manifest.
        sealed: u64,
    },
    /// The key-encryption key does not unwrap the data store key.
    #[error(
        "the guest state's key protector does not open with the released key: another key, or tampered with"
    )]
    WrongKey,
    /// Not an RSA key of an allowed size.
    #[error("the released key is not an RSA key of 2048 to 4096 bits in PKCS#8")]
    KekRejected,
    /// A new generation must be higher.
    #[error("the next generation must be above {current}, {asked} was asked for")]
    NotNewer {
        /// Of the open state.
        current: u64,
        /// Asked for.
        asked: u64,
    },
    /// A former commit failed so late that it is unknown which state is the durable one.
    #[error("a former commit failed while its header was written; the guest state must be opened again")]
    Unknown,
}

/// VM id, generation and the name of the key-encryption key, in clear.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Identity {
    vm_id: Uuid,
    generation: u64,
    /// States of former versions name no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
}

/// What the encrypted manifest says.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    identity: Identity,
    files: BTreeMap<u8, Fingerprint>,
}

/// Size and digest of a file as stored.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fingerprint {
    size: u64,
    sha256: String,
}

impl Fingerprint {
    fn of(stored: &[u8]) -> Self {
        Self { size: stored.len() as u64, sha256: hex::encode(crypto::sha256(&[stored])) }
    }
}

/// An unlocked state. Contents are held in memory (some hundred KiB) and wiped on drop.
pub struct GuestState<S = File> {
    storage: S,
    identity: Identity,
    kek: KekPublic,
    dek: Secret<32>,
    protector: KeyProtector,
    durable: Durable,
    /// Set while a header is being written; stays set if that failed.
    unknown: bool,
}

/// What the valid header describes.
struct Durable {
    sequence: u32,
    /// Block of the header in use: 0 or 1.
    header: u64,
    /// Blocks of the file table and the extended file table.
    tables: [Extent; 2],
    files: BTreeMap<u8, Stored>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Extent {
    block: u32,
    blocks: u32,
}

/// One file: where it lies, its key, its content.
struct Stored {
    entry: format::FileEntry,
    /// None for files in clear.
    key: Option<Secret<32>>,
    fingerprint: Fingerprint,
    content: Zeroizing<Vec<u8>>,
}

impl<S: Storage> GuestState<S> {
    /// A new state in an emptied file, durable when this returns.
    pub fn create(
        mut storage: S,
        vm_id: Uuid,
        kek: &Kek,
        files: Changes,
        generation: u64,
    ) -> Result<Self, StateError> {
        storage.set_length(0)?;
        storage.set_length(write::DEFAULT_CAPACITY)?;
        let nowhere = Extent { block: 0, blocks: 0 };
        let mut state = Self {
            storage,
            identity: Identity { vm_id, generation, key_id: kek.public().id },
            kek: kek.public(),
            dek: Secret::random(),
            protector: KeyProtector::empty(),
            durable: Durable { sequence: 0, header: 1, tables: [nowhere; 2], files: BTreeMap::new() },
            unknown: false,
        };
        state.write_generation(files, generation)?;
        Ok(state)
    }

    /// The VM this state belongs to.
    pub fn vm_id(&self) -> Uuid {
        self.identity.vm_id
    }

    /// The generation last written.
    pub fn generation(&self) -> u64 {
        self.identity.generation
    }

    /// The key-encryption key to which this generation's data store key is wrapped, if that key was named.
    pub fn key_id(&self) -> Option<&str> {
        self.identity.key_id.as_deref()
    }

    /// Whether this is the very key that the state was opened with or moved to, whatever it is called.
    pub fn is_under(&self, kek: &Kek) -> bool {
        *self.kek.spki == *kek.spki()
    }

    /// A file's content.
    pub fn read(&self, file: FileId) -> Option<&[u8]> {
        self.durable.files.get(&(file as u8)).map(|stored| stored.content.as_slice())
    }

    /// Makes the changes durable within the same generation, all or none.
    pub fn commit(&mut self, changes: Changes) -> Result<(), StateError> {
        self.write(changes, self.identity.clone(), None)
    }

    /// Makes the changes durable as a new, higher generation with a new data store key, all or none.
    pub fn advance(&mut self, changes: Changes, generation: u64) -> Result<(), StateError> {
        if generation <= self.identity.generation {
            return Err(StateError::NotNewer { current: self.identity.generation, asked: generation });
        }
        self.write_generation(changes, generation)
    }

    /// Wraps the data store keys of the generations to come to another key-encryption key (key rotation).
    pub fn set_kek(&mut self, kek: &Kek) {
        self.kek = kek.public();
    }
}
