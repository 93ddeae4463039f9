//! What is kept of a VM between its boots: guest state, boot region, record, TPM state; one place that writes them.
//!
//! Until [`Keeper::write_generation`] everything is only collected. From then on each change is committed as it comes,
//! within the same generation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sealed_disk::boot_region::{BootRegion, BootRegionError};
use sealed_disk::guest_state::{Changes, FileId, GuestState, Kek};
use uuid::Uuid;
use vtpm::predict::Prediction;
use zeroize::Zeroizing;

use super::attest::Written;
use super::launch::Launch;
use super::record::Record;
use super::recovery::sync_folder_of;
use super::recovery_document::Publication;
use super::vars::Approved;
use crate::failure::Stop;

/// The container of the guest state.
pub enum Container {
    /// A first start: made when it is first written.
    New {
        /// To whom its keys are wrapped.
        kek: Box<Kek>,
        /// Where it will lie.
        path: PathBuf,
        /// The VM.
        vm_id: Uuid,
    },
    /// Open.
    Open(Box<GuestState<File>>),
}

/// Everything that lasts.
pub struct Keeper {
    container: Container,
    /// `None` if only the guest state is encrypted.
    pub region: Option<BootRegion<File>>,
    /// The paravisor's record.
    pub record: Record,
    /// The Secure Boot state that was approved.
    pub approved: Approved,
    tpm: Zeroizing<Vec<u8>>,
    dirty: BTreeSet<FileId>,
    table: Vec<u8>,
    live: bool,
    /// Whether the durable guest state names a table whose predecessors' slots are still pinned.
    unsettled: bool,
    publication: Option<Publication>,
    basis: Option<[u8; 32]>,
    /// The boot that the volume key is sealed to now.
    pub sealed: Option<Prediction>,
}

impl Keeper {
    /// A keeper of a new VM; all is unwritten.
    pub fn new(
        container: Container,
        region: Option<BootRegion<File>>,
        record: Record,
        approved: Approved,
    ) -> Self {
        let dirty = BTreeSet::from([FileId::Record, FileId::SecureBoot]);
        let (tpm, table) = (Zeroizing::default(), Vec::new());
        Self {
            container,
            region,
            record,
            approved,
            tpm,
            dirty,
            table,
            live: false,
            unsettled: false,
            publication: None,
            basis: None,
            sealed: None,
        }
    }

    /// A keeper of an opened guest state.
    pub fn open(state: GuestState<File>, boot_region: &Path) -> Result<Self, Stop> {
        let missing = |what| Stop::from(sealed_disk::guest_state::StateError::Tampered { what });
        let record = Record::parse(state.read(FileId::Record).ok_or_else(|| missing("record"))?)?;
        let approved = state.read(FileId::SecureBoot).ok_or_else(|| missing("approved Secure Boot state"))?;
        let approved = Approved::parse(approved)?;
        let tpm = state.read(FileId::TpmNvram).ok_or_else(|| missing("TPM state"))?;
        let tpm = Zeroizing::new(tpm.to_vec());
        let (mut region, mut table) = (None, Vec::new());
        if let Some(volume) = &record.volume {
            let named = state.read(FileId::BootRegionTable).ok_or_else(|| missing("boot region table"))?;
            let file = open_file(boot_region)?;
            region = Some(BootRegion::open(file, state.vm_id(), &volume.region_key, named)?);
            table.extend(named);
        }
        let container = Container::Open(Box::new(state));
        let dirty = BTreeSet::new();
        Ok(Self {
            container,
            region,
            record,
            approved,
            tpm,
            dirty,
            table,
            live: false,
            unsettled: false,
            publication: None,
            basis: None,
            sealed: None,
        })
    }

    /// The TPM's state as last kept.
    pub fn tpm(&self) -> Zeroizing<Vec<u8>> {
        self.tpm.clone()
    }

    /// Whether the present seal was made for this basis (a digest of the inputs beside the boot region), and nothing was
    /// written to the boot region since.
    pub fn is_sealed_for(&self, basis: [u8; 32]) -> bool {
        self.basis == Some(basis)
    }

    /// The seal is now for this basis.
    pub fn sealed_for(&mut self, basis: [u8; 32]) {
        self.basis = Some(basis);
    }

    /// The guest wrote to the boot region: the next boot may be another one.
    pub fn region_written(&mut self) {
        self.basis = None;
    }

    /// The generation last written; 0 if none was.
    pub fn generation(&self) -> u64 {
        match &self.container {
            Container::New { .. } => 0,
            Container::Open(state) => state.generation(),
        }
    }

    /// What is durable now.
    pub fn written(&self, launch: &Launch) -> Written {
        let key_id = match &self.container {
            Container::New { .. } => None,
            Container::Open(state) => state.key_id(),
        };
        let key_id = key_id.unwrap_or(&launch.document.key_id).to_owned();
        Written { generation: self.generation(), key_id, sealed: self.sealed.clone() }
    }

    /// Whether the guest state is under this very key, whatever it is called.
    pub fn is_under(&self, kek: &Kek) -> bool {
        match &self.container {
            Container::New { .. } => false,
            Container::Open(state) => state.is_under(kek),
        }
    }

    /// The generations to come are for this key.
    pub fn change_key(&mut self, kek: &Kek) {
        if let Container::Open(state) = &mut self.container {
            state.set_kek(kek);
        }
    }

    /// Keeps a new state of the TPM.
    pub fn keep_tpm(&mut self, state: Zeroizing<Vec<u8>>) -> Result<(), Stop> {
        if state != self.tpm {
            self.tpm = state;
            self.dirty.insert(FileId::TpmNvram);
        }
        self.commit()
    }

    /// Says that [`Keeper::record`] was changed.
    pub fn record_changed(&mut self) {
        self.dirty.insert(FileId::Record);
    }

    /// Makes every change durable within the present generation, once a generation was written.
    pub fn commit(&mut self) -> Result<(), Stop> {
        if self.live { self.write(None) } else { Ok(()) }
    }

    /// Makes everything durable as a new generation.
    pub fn write_generation(&mut self, generation: u64) -> Result<(), Stop> {
        self.write(Some(generation))?;
        self.live = true;
        Ok(())
    }

    fn write(&mut self, generation: Option<u64>) -> Result<(), Stop> {
        self.flush_region()?;
        if self.dirty.is_empty() && generation.is_none() {
            self.settle();
            return Ok(());
        }
        let changes = self.changes()?;
        match (&mut self.container, generation) {
            (Container::Open(state), None) => state.commit(changes)?,
            (Container::Open(state), Some(generation)) => state.advance(changes, generation)?,
            (Container::New { kek, path, vm_id }, generation) => {
                let state = create(path, *vm_id, kek, changes, generation.unwrap_or(1))?;
                self.container = Container::Open(Box::new(state));
            }
        }
        let table_written = self.dirty.contains(&FileId::BootRegionTable);
        self.dirty.clear();
        self.unsettled |= table_written;
        if let Some(publication) = self.publication.as_mut().filter(|_| table_written || generation.is_some())
        {
            publication.outdate();
        }
        self.settle();
        Ok(())
    }

    /// Lets the recovery document follow what was committed; only then may slots that older tables name be used again. The
    /// commit stands whatever comes of this: an error here must not make anybody repeat it.
    fn settle(&mut self) {
        if let Err(stop) = self.publish() {
            let failure = stop.failure();
            tracing::error!(code = failure.code, what = failure.actual, "the recovery document is behind");
            return;
        }
        if let Some(region) = self.region.as_mut().filter(|_| std::mem::take(&mut self.unsettled)) {
            region.committed();
        }
    }

    /// Publishes the recovery document from now on; at once, if a guest state was written.
    pub fn publish_to(&mut self, publication: Publication) -> Result<(), Stop> {
        self.publication = Some(publication);
        self.publish()
    }

    fn publish(&mut self) -> Result<(), Stop> {
        match (&self.container, self.publication.as_mut(), &self.record.volume) {
            (Container::Open(state), Some(publication), Some(volume)) => {
                publication.bring_up(state, volume, &self.table)
            }
            _ => Ok(()),
        }
    }

    fn flush_region(&mut self) -> Result<(), BootRegionError> {
        if let Some(region) = self.region.as_mut().filter(|region| region.is_dirty()) {
            self.table = region.flush()?;
            self.dirty.insert(FileId::BootRegionTable);
        }
        Ok(())
    }

    fn changes(&self) -> Result<Changes, Stop> {
        let mut changes = BTreeMap::new();
        for file in &self.dirty {
            let content = match file {
                FileId::Record => self.record.to_bytes()?,
                FileId::SecureBoot => self.approved.to_bytes()?,
                FileId::TpmNvram => self.tpm.clone(),
                FileId::BootRegionTable => Zeroizing::new(self.table.clone()),
                FileId::BiosNvram | FileId::Attest => continue,
            };
            changes.insert(*file, content);
        }
        Ok(changes)
    }
}

/// Makes the guest state under another name first, so that there is a whole one or none.
fn create(
    path: &Path,
    vm_id: Uuid,
    kek: &Kek,
    files: Changes,
    generation: u64,
) -> Result<GuestState<File>, Stop> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let file = new_file(Path::new(&temporary))?;
    let state = GuestState::create(file, vm_id, kek, files, generation)?;
    fs::rename(&temporary, path)
        .and_then(|()| sync_folder_of(path))
        .map_err(|error| Stop::io("naming the guest state", &error))?;
    Ok(state)
}

/// An existing file, for reading and writing.
pub(super) fn open_file(path: &Path) -> Result<File, Stop> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Stop::refused(
            "StorageMissing",
            path.display().to_string(),
            "the file that this VM wrote at its first start",
            "no such file",
            "guest state, boot region and disk belong together",
            "put the file back, or recover the data with the recovery key",
        ),
        _ => Stop::io(&format!("opening {}", path.display()), &error),
    })
}

/// A new, empty file that nobody else may read; a former one is emptied.
pub(super) fn new_file(path: &Path) -> Result<File, Stop> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Stop::io(&format!("making {}", path.display()), &error))
}
