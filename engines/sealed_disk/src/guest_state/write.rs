//! Writing a guest state: new blocks, sync, the other header, sync.

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroizing;

use super::format::{
    self, BLOCK, BLOCK_BYTES, EXTENDED_TABLE, FIRST_FILE_BLOCK, FileEntry, Header, WrappedKey,
};
use super::{
    Changes, Durable, Extent, Fingerprint, GuestState, IDENTITY, Identity, KEY_PROTECTOR, KeyProtector,
    MANIFEST, Manifest, StateError, Stored,
};
use crate::crypto::{self, NONCE_BYTES, TAG_BYTES};
use crate::secret::Secret;
use crate::storage::Storage;

/// The capacity that VMGS files usually have; the file grows when more is needed.
pub(super) const DEFAULT_CAPACITY: u64 = 4 << 20;

/// A new generation's keys.
pub(super) struct NewKeys {
    dek: Secret<32>,
    protector: KeyProtector,
}

/// What a commit will write, in order.
struct Plan {
    files: BTreeMap<u8, Stored>,
    /// Block and bytes.
    writes: Vec<(u32, Vec<u8>)>,
    blocks: FreeBlocks,
}

impl<S: Storage> GuestState<S> {
    pub(super) fn write_generation(&mut self, changes: Changes, generation: u64) -> Result<(), StateError> {
        let dek = Secret::random();
        let protector = self.protector.next(&self.kek, &dek);
        let identity = Identity { vm_id: self.identity.vm_id, generation, key_id: self.kek.id.clone() };
        self.write(changes, identity, Some(NewKeys { dek, protector }))
    }

    pub(super) fn write(
        &mut self,
        changes: Changes,
        identity: Identity,
        keys: Option<NewKeys>,
    ) -> Result<(), StateError> {
        if self.unknown {
            return Err(StateError::Unknown);
        }
        let (dek, protector) = match &keys {
            Some(keys) => (&keys.dek, &keys.protector),
            None => (&self.dek, &self.protector),
        };
        let mut plan = self.plan(changes, &identity, protector);
        let metadata_key = Secret::random();
        let tables = plan.add_tables(&metadata_key);
        let mut metadata_keys = [WrappedKey::NONE; 2];
        metadata_keys[protector.index()] = wrap(dek, &metadata_key);
        let header = Header {
            sequence: self.durable.sequence.wrapping_add(1),
            file_table: tables[0].block,
            metadata_keys,
        };
        self.store_blocks(&plan)?;
        let header_block = 1 - self.durable.header;
        self.unknown = true;
        self.storage.write(header_block * BLOCK, &header.to_bytes())?;
        self.storage.sync()?;
        self.unknown = false;
        self.durable = Durable { sequence: header.sequence, header: header_block, tables, files: plan.files };
        self.identity = identity;
        if let Some(keys) = keys {
            (self.dek, self.protector) = (keys.dek, keys.protector);
        }
        Ok(())
    }

    /// Files that stay, with their places and keys, and the changed ones in free blocks under fresh keys.
    fn plan(&self, changes: Changes, identity: &Identity, protector: &KeyProtector) -> Plan {
        let mut plan =
            Plan { files: BTreeMap::new(), writes: Vec::new(), blocks: FreeBlocks::new(&self.durable) };
        for (file, content) in changes {
            plan.add_encrypted(file as u8, content);
        }
        plan.add_plain(KEY_PROTECTOR, protector.to_bytes());
        plan.add_plain(IDENTITY, serde_json::to_vec(identity).expect("plain values serialise"));
        for (&number, stored) in &self.durable.files {
            if number != MANIFEST && !plan.files.contains_key(&number) {
                plan.files.insert(number, stored.duplicate());
            }
        }
        let files =
            plan.files.iter().map(|(&number, stored)| (number, stored.fingerprint.duplicate())).collect();
        let manifest = serde_json::to_vec(&Manifest { identity: identity.clone(), files })
            .expect("plain values serialise");
        plan.add_encrypted(MANIFEST, Zeroizing::new(manifest));
        plan
    }

    fn store_blocks(&mut self, plan: &Plan) -> Result<(), StateError> {
        let needed = u64::from(plan.blocks.end) * BLOCK;
        if self.storage.length()? < needed {
            self.storage.set_length(needed)?;
        }
        for (block, bytes) in &plan.writes {
            self.storage.write(u64::from(*block) * BLOCK, bytes)?;
        }
        Ok(self.storage.sync()?)
    }
}

impl Plan {
    fn add_encrypted(&mut self, number: u8, content: Zeroizing<Vec<u8>>) {
        let key = Secret::random();
        let (stored, nonce, tag) = encrypt(&key, &content);
        self.add(number, stored, nonce, tag, Some(key), content);
    }

    fn add_plain(&mut self, number: u8, content: Vec<u8>) {
        let (nonce, tag) = ([0; NONCE_BYTES], [0; TAG_BYTES]);
        self.add(number, content.clone(), nonce, tag, None, Zeroizing::new(content));
    }

    fn add(
        &mut self,
        number: u8,
        stored: Vec<u8>,
        nonce: [u8; NONCE_BYTES],
        tag: [u8; TAG_BYTES],
        key: Option<Secret<32>>,
        content: Zeroizing<Vec<u8>>,
    ) {
        let Extent { block, blocks } = self.blocks.take(stored.len());
        let entry = FileEntry { block, blocks, size: stored.len() as u64, nonce, tag };
        self.files.insert(number, Stored { entry, key, fingerprint: Fingerprint::of(&stored), content });
        self.writes.push((block, stored));
    }

    /// The extended file table under the metadata key, and the file table that names it and all files.
    fn add_tables(&mut self, metadata_key: &Secret<32>) -> [Extent; 2] {
        let keys =
            self.files.iter().filter_map(|(&number, file)| Some((number, file.key.as_ref()?.expose())));
        let (stored, nonce, tag) = encrypt(metadata_key, &format::extended_table(keys));
        let extended = self.blocks.take(stored.len());
        let mut entries: BTreeMap<u8, FileEntry> =
            self.files.iter().map(|(&number, file)| (number, file.entry)).collect();
        let Extent { block, blocks } = extended;
        entries.insert(EXTENDED_TABLE, FileEntry { block, blocks, size: stored.len() as u64, nonce, tag });
        self.writes.push((extended.block, stored));
        let bytes = format::file_table(&entries);
        let table = self.blocks.take(bytes.len());
        self.writes.push((table.block, bytes));
        [table, extended]
    }
}

impl Stored {
    fn duplicate(&self) -> Self {
        let fingerprint = self.fingerprint.duplicate();
        Self { entry: self.entry, key: self.key.clone(), fingerprint, content: self.content.clone() }
    }
}

impl Fingerprint {
    fn duplicate(&self) -> Self {
        Self { size: self.size, sha256: self.sha256.clone() }
    }
}

/// Blocks that the durable state does not use.
struct FreeBlocks {
    used: BTreeSet<u32>,
    /// One above the highest block used or taken.
    end: u32,
}

impl FreeBlocks {
    fn new(durable: &Durable) -> Self {
        let files =
            durable.files.values().map(|file| Extent { block: file.entry.block, blocks: file.entry.blocks });
        let extents = files.chain(durable.tables);
        let used: BTreeSet<u32> =
            extents.flat_map(|extent| extent.block..extent.block + extent.blocks).collect();
        let end = used.last().map_or(FIRST_FILE_BLOCK, |last| last + 1);
        Self { used, end }
    }

    /// The first free run that holds this many bytes.
    fn take(&mut self, bytes: usize) -> Extent {
        let blocks = u32::try_from(bytes.div_ceil(BLOCK_BYTES).max(1)).expect("files are far below 16 TiB");
        let mut block = FIRST_FILE_BLOCK;
        for &used in &self.used {
            if used >= block + blocks {
                break;
            }
            block = block.max(used + 1);
        }
        self.used.extend(block..block + blocks);
        self.end = self.end.max(block + blocks);
        Extent { block, blocks }
    }
}

fn wrap(dek: &Secret<32>, metadata_key: &Secret<32>) -> WrappedKey {
    let mut key = *metadata_key.expose();
    let nonce = crypto::random();
    let tag = crypto::gcm_seal(dek, nonce, &[], &mut key);
    WrappedKey { nonce, tag, key }
}

/// Encrypts under a key that is used once.
fn encrypt(key: &Secret<32>, content: &[u8]) -> (Vec<u8>, [u8; NONCE_BYTES], [u8; TAG_BYTES]) {
    let mut stored = content.to_vec();
    let nonce = crypto::random();
    let tag = crypto::gcm_seal(key, nonce, &[], &mut stored);
    (stored, nonce, tag)
}
