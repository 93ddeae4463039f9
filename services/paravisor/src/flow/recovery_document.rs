//! The recovery document beside the guest state: the second way into the boot region, for the tenant's private key.
//!
//! ```text
//! boot region flushed -> guest state committed -> document replaced -> slots of older tables may be used again
//!                        |                        |
//!                        +- crash: the document is one step behind, and what it names is still there
//! ```
//!
//! It is never ahead of the guest state. A document that cannot be written does not stop the VM: it says in its generation
//! that it is behind, and is written at the next change.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use sealed_disk::guest_state::GuestState;
use sealed_disk::recovery::{Contents, Document, fingerprint};
use sealed_disk::secret::{Secret, as_base64};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::keeper::Keeper;
use super::launch::Launch;
use super::record::{Record, VolumeRecord};
use super::recovery::{beside, publish_at, wrap_bytes};
use crate::failure::Stop;

/// The key of the recovery document, and the same wrapped to the tenant.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DocumentKey {
    #[serde(with = "as_base64")]
    key: Secret<32>,
    #[serde(with = "public_api::encoding::base64url")]
    wrapped: Vec<u8>,
}

impl DocumentKey {
    /// A new key, if the tenant named a recovery key. What is wrapped is its text in hex, for `openssl`'s command line.
    pub fn make(launch: &Launch) -> Result<Option<Self>, Stop> {
        let key = Secret::random();
        let text = Zeroizing::new(hex::encode(key.expose()));
        Ok(wrap_bytes(launch, text.as_bytes())?.map(|wrapped| Self { key, wrapped }))
    }

    /// HMAC-SHA256 of the published LUKS2 header, in hex.
    pub fn mac(&self, header: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose());
        hex::encode(hmac::sign(&key, header))
    }
}

/// Makes the key, if this VM has a recovery passphrase but was made before there was a recovery document.
pub fn ensure_key(keeper: &mut Keeper, launch: &Launch) -> Result<(), Stop> {
    let without = |volume: &&mut VolumeRecord| volume.recovery.is_some() && volume.document_key.is_none();
    if let Some(volume) = keeper.record.volume.as_mut().filter(without) {
        volume.document_key = DocumentKey::make(launch)?;
        keeper.record_changed();
    }
    Ok(())
}

/// Fingerprint of the VM's document key, if it has one.
pub fn fingerprint_of(record: &Record, vm_id: Uuid) -> Option<String> {
    let key = record.volume.as_ref()?.document_key.as_ref()?;
    Some(hex::encode(fingerprint(vm_id, &key.key)))
}

/// Takes the OS disk for this process until the file is closed: an export of a disk that is being written would be torn.
pub fn claim_disk(file: &File) -> Result<(), Stop> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::Error(error)) => Err(Stop::io("locking the OS disk", &error)),
        Err(TryLockError::WouldBlock) => Err(Stop::refused(
            "DiskInUse",
            "OS disk",
            "no other process that uses it",
            "it is locked",
            "a disk has one paravisor, and none while it is exported",
            "wait until the export (`casemate disk export`) or the other paravisor of this VM has ended",
        )
        .transient()),
    }
}

/// Where the document lies.
pub fn path(guest_state: &Path) -> PathBuf {
    beside(guest_state, ".recovery-document.json")
}

/// Where to publish, and whether what is there is behind.
pub struct Publication {
    guest_state: PathBuf,
    header_start: u64,
    behind: bool,
}

impl Publication {
    /// Beside a guest state; nothing is published yet.
    pub fn new(guest_state: &Path, header_start: u64) -> Self {
        Self { guest_state: guest_state.to_owned(), header_start, behind: true }
    }

    /// The published document is not the newest any more.
    pub fn outdate(&mut self) {
        self.behind = true;
    }

    /// Replaces the document, if it is behind, with one of this committed state and table.
    pub fn bring_up<S: sealed_disk::storage::Storage>(
        &mut self,
        state: &GuestState<S>,
        volume: &VolumeRecord,
        table: &[u8],
    ) -> Result<(), Stop> {
        let Some(DocumentKey { key, wrapped }) = volume.document_key.as_ref().filter(|_| self.behind) else {
            return Ok(());
        };
        let contents = Contents {
            header_start: self.header_start,
            luks_uuid: volume.uuid,
            region_key: volume.region_key.clone(),
            table: table.to_vec(),
        };
        let document = Document::seal(state.vm_id(), state.generation(), key, wrapped.clone(), &contents);
        publish_at(&path(&self.guest_state), &document.to_bytes())?;
        self.behind = false;
        Ok(())
    }
}
