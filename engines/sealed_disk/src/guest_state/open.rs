//! Reading a guest state: what it claims in clear, then everything with every check.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use serde::de::DeserializeOwned;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::format::{self, BLOCK, EXTENDED_TABLE, FileEntry, HEADER_BYTES, Header};
use super::{
    CALLERS_FILES, Durable, Extent, Fingerprint, GuestState, IDENTITY, Identity, KEY_PROTECTOR, Kek,
    KeyProtector, MANIFEST, Manifest, StateError, Stored,
};
use crate::crypto;
use crate::secret::Secret;
use crate::storage::Storage;

/// No file of a guest state is larger: bounds memory before anything is authenticated.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A state whose claims in clear were read. They are the host's word until [`LockedState::unlock`] has returned.
pub struct LockedState<S = File> {
    storage: S,
    header: Header,
    header_block: u64,
    entries: BTreeMap<u8, FileEntry>,
    identity: Identity,
    protector: KeyProtector,
}

impl<S: Storage> LockedState<S> {
    /// Reads headers, table and the files in clear; refuses another VM's state.
    pub fn open(storage: S, vm_id: Uuid) -> Result<Self, StateError> {
        let total = storage.length()? / BLOCK;
        let (header_block, header) = newest_header(&storage)?;
        if u64::from(header.file_table) >= total {
            return Err(StateError::Truncated);
        }
        let table = read(&storage, u64::from(header.file_table) * BLOCK, BLOCK)?;
        let entries = format::parse_file_table(&table, total)?;
        check_overlaps(&entries, header.file_table)?;
        let in_clear = |number: u8, what| {
            let entry = entries.get(&number).ok_or(StateError::Tampered { what })?;
            read_file(&storage, entry)
        };
        let identity: Identity = parse(&in_clear(IDENTITY, "identity")?, "identity")?;
        if identity.vm_id != vm_id {
            return Err(StateError::OtherVm { expected: vm_id, found: identity.vm_id });
        }
        let protector = KeyProtector::parse(&in_clear(KEY_PROTECTOR, "key protector")?)?;
        Ok(Self { storage, header, header_block, entries, identity, protector })
    }

    /// The VM that the state names (the expected one).
    pub fn vm_id(&self) -> Uuid {
        self.identity.vm_id
    }

    /// The generation that the state names: what to present to the key service.
    pub fn generation(&self) -> u64 {
        self.identity.generation
    }

    /// The key that the state says it is wrapped to: which one to ask the key service for. States of former versions name
    /// none.
    pub fn key_id(&self) -> Option<&str> {
        self.identity.key_id.as_deref()
    }

    /// Decrypts and checks everything.
    pub fn unlock(self, kek: &Kek) -> Result<GuestState<S>, StateError> {
        let dek = self.protector.unwrap(kek)?;
        let extended = self.extended_table(&dek)?;
        let mut files = BTreeMap::new();
        for (&number, entry) in self.entries.iter().filter(|(number, _)| **number != EXTENDED_TABLE) {
            files.insert(number, self.open_file(number, *entry, &extended)?);
        }
        self.check_manifest(&files)?;
        let table = Extent { block: self.header.file_table, blocks: 1 };
        let extended = self.entries[&EXTENDED_TABLE];
        let tables = [table, Extent { block: extended.block, blocks: extended.blocks }];
        let durable = Durable { sequence: self.header.sequence, header: self.header_block, tables, files };
        let Self { storage, identity, protector, .. } = self;
        Ok(GuestState { storage, identity, kek: kek.public(), dek, protector, durable, unknown: false })
    }

    fn extended_table(&self, dek: &Secret<32>) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let wrapped = &self.header.metadata_keys[self.protector.index()];
        let metadata_key = crypto::gcm_open(dek, wrapped.nonce, &[], &wrapped.key, &wrapped.tag)
            .map_err(|_| StateError::Tampered { what: "metadata key" })?;
        let metadata_key = Secret::from_slice(&metadata_key).expect("the wrapped key has 32 bytes");
        let what = "extended file table";
        let entry = self.entries.get(&EXTENDED_TABLE).ok_or(StateError::Tampered { what })?;
        let stored = read_file(&self.storage, entry)?;
        crypto::gcm_open(&metadata_key, entry.nonce, &[], &stored, &entry.tag)
            .map_err(|_| StateError::Tampered { what })
    }

    fn open_file(&self, number: u8, entry: FileEntry, extended: &[u8]) -> Result<Stored, StateError> {
        let what = name_of(number).ok_or(StateError::Tampered { what: "list of files" })?;
        let stored = read_file(&self.storage, &entry)?;
        let fingerprint = Fingerprint::of(&stored);
        if [IDENTITY, KEY_PROTECTOR].contains(&number) {
            return Ok(Stored { entry, key: None, fingerprint, content: Zeroizing::new(stored) });
        }
        let key = format::file_key(extended, number).ok_or(StateError::Tampered { what: "list of files" })?;
        let key = Secret::from_bytes(key);
        let content = crypto::gcm_open(&key, entry.nonce, &[], &stored, &entry.tag)
            .map_err(|_| StateError::Tampered { what })?;
        Ok(Stored { entry, key: Some(key), fingerprint, content })
    }

    fn check_manifest(&self, files: &BTreeMap<u8, Stored>) -> Result<(), StateError> {
        let what = "manifest";
        let manifest: Manifest =
            parse(&files.get(&MANIFEST).ok_or(StateError::Tampered { what })?.content, what)?;
        let sealed = &manifest.identity;
        if sealed.vm_id != self.identity.vm_id {
            return Err(StateError::OtherVm { expected: self.identity.vm_id, found: sealed.vm_id });
        }
        if sealed.generation != self.identity.generation {
            return Err(StateError::GenerationMismatch {
                clear: self.identity.generation,
                sealed: sealed.generation,
            });
        }
        let mut others = files.iter().filter(|(number, _)| **number != MANIFEST);
        if !others.clone().map(|(number, _)| number).eq(manifest.files.keys()) {
            return Err(StateError::Tampered { what: "list of files" });
        }
        match others.find(|(number, stored)| manifest.files[number] != stored.fingerprint) {
            Some((&number, _)) => Err(StateError::Tampered { what: name_of(number).expect("opened above") }),
            None => Ok(()),
        }
    }
}

fn newest_header<S: Storage>(storage: &S) -> Result<(u64, Header), StateError> {
    let mut found: Option<(u64, Header)> = None;
    for block in 0..2 {
        let mut bytes = [0; HEADER_BYTES];
        match storage.read(block * BLOCK, &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            other => other?,
        }
        let Some(header) = Header::parse(&bytes) else { continue };
        if found.as_ref().is_none_or(|(_, other)| header.is_newer_than(other)) {
            found = Some((block, header));
        }
    }
    found.ok_or(StateError::NotGuestState)
}

fn check_overlaps(entries: &BTreeMap<u8, FileEntry>, file_table: u32) -> Result<(), StateError> {
    let mut extents: Vec<(u32, u32)> = entries.values().map(|entry| (entry.block, entry.blocks)).collect();
    extents.push((file_table, 1));
    extents.sort_unstable();
    let overlap = |pair: &[(u32, u32)]| u64::from(pair[0].0) + u64::from(pair[0].1) > u64::from(pair[1].0);
    if extents.windows(2).any(overlap) { Err(StateError::Tampered { what: "file table" }) } else { Ok(()) }
}

fn read_file<S: Storage>(storage: &S, entry: &FileEntry) -> Result<Vec<u8>, StateError> {
    if entry.size > MAX_FILE_BYTES {
        return Err(StateError::Tampered { what: "file table" });
    }
    read(storage, u64::from(entry.block) * BLOCK, entry.size)
}

fn read<S: Storage>(storage: &S, offset: u64, length: u64) -> Result<Vec<u8>, StateError> {
    let mut bytes =
        vec![0; usize::try_from(length).map_err(|_| StateError::Tampered { what: "file table" })?];
    storage.read(offset, &mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => StateError::Truncated,
        _ => StateError::Io(error),
    })?;
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, StateError> {
    serde_json::from_slice(bytes).map_err(|_| StateError::Tampered { what })
}

fn name_of(number: u8) -> Option<&'static str> {
    match number {
        IDENTITY => Some("identity"),
        KEY_PROTECTOR => Some("key protector"),
        MANIFEST => Some("manifest"),
        _ => CALLERS_FILES.into_iter().find(|file| *file as u8 == number).map(|file| match file {
            super::FileId::BiosNvram => "firmware variables",
            super::FileId::TpmNvram => "TPM state",
            super::FileId::Attest => "attestation data",
            super::FileId::BootRegionTable => "boot region table",
            super::FileId::SecureBoot => "approved Secure Boot state",
            super::FileId::Record => "record",
        }),
    }
}
