//! A VM's files as the host has them. All are the host's word.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sealed_disk::guest_state::{LockedState, StateError};
use sealed_disk::recovery::Document;
use uuid::Uuid;

use super::refusal;
use crate::failure::Stop;
use crate::flow::recovery::{self, Recovery};
use crate::flow::recovery_document;

/// No file that is read whole is larger.
const LONGEST: u64 = 64 << 20;

/// The folder.
pub(super) struct Folder(PathBuf);

/// What the guest state says in clear.
pub(super) struct State {
    pub(super) vm_id: Uuid,
    pub(super) generation: u64,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn guest_state(&self) -> PathBuf {
        self.0.join("guest-state.vmgs")
    }

    /// A file that must be there.
    pub(super) fn open(&self, name: &str) -> Result<File, Stop> {
        open(&self.0.join(name))
    }

    /// The wrapped passphrase.
    pub(super) fn recovery(&self) -> Result<Recovery, Stop> {
        recovery(&recovery::path(&self.guest_state()))
    }

    /// The recovery document.
    pub(super) fn document(&self) -> Result<Document, Stop> {
        let path = recovery_document::path(&self.guest_state());
        if !path.exists() {
            return Err(refusal::no_document(&path));
        }
        Document::parse(&read(&path)?).map_err(|error| refusal::document(&error))
    }

    /// The guest state's claims, if it is there.
    pub(super) fn state(&self, expected: Uuid) -> Result<Option<State>, Stop> {
        let path = self.guest_state();
        if !path.exists() {
            return Ok(None);
        }
        match LockedState::open(open(&path)?, expected) {
            Ok(state) => Ok(Some(State { vm_id: state.vm_id(), generation: state.generation() })),
            Err(StateError::OtherVm { found, .. }) => Ok(Some(State { vm_id: found, generation: 0 })),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads a recovery file.
pub(super) fn recovery(path: &Path) -> Result<Recovery, Stop> {
    if !path.exists() {
        return Err(refusal::no_recovery(path));
    }
    let recovery: Recovery =
        serde_json::from_slice(&read(path)?).map_err(|error| refusal::recovery(&error.to_string()))?;
    match (recovery.version, recovery.alg.as_str()) {
        (1, "RSA-OAEP-256") => Ok(recovery),
        (version, alg) => Err(refusal::recovery(&format!("version {version}, {alg}"))),
    }
}

/// A file, whole.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    let doing = || format!("reading {}", path.display());
    open(path)?.take(LONGEST).read_to_end(&mut bytes).map_err(|error| Stop::io(&doing(), &error))?;
    if bytes.len() as u64 == LONGEST {
        return Err(Stop::io(&doing(), &io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

fn open(path: &Path) -> Result<File, Stop> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refusal::missing(path),
        _ => Stop::io(&format!("opening {}", path.display()), &error),
    })
}
