//! The tenant's side of recovery: from a VM's files and the tenant's private key to a plain disk and its passphrase.
//!
//! It runs where the tenant runs it, asks nobody, and trusts nothing in the VM's folder: the private key opens the document
//! key, the document key authenticates the boot region, and only then is data read. What it cannot know by itself is
//! whether the *whole* folder is the one of today and of this VM's paravisor; for that it takes what the tenant kept
//! (fingerprint, generation, VM id).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sealed_disk::recovery::{Document, Export, ExportError, Exported, fingerprint};
use serde_json::{Value, json};
use uuid::Uuid;

mod folder;
mod private_key;
mod refusal;

use self::folder::Folder;
use self::private_key::PrivateKey;
use crate::failure::{Stop, chain};
use crate::flow::recovery::Recovery;

/// What to export, and what the tenant knows of it.
#[derive(Debug)]
pub struct Request {
    /// The VM's folder, as the host had it.
    pub folder: PathBuf,
    /// The tenant's private key (PEM, PKCS #8).
    pub key: PathBuf,
    /// The image to make.
    pub to: PathBuf,
    /// The VM that it must be.
    pub vm_id: Option<Uuid>,
    /// Fingerprint of the document key, out of the VM's evidence.
    pub fingerprint: Option<String>,
    /// The generation that it must have at least.
    pub generation: Option<u64>,
    /// Take a document that is of another generation than the guest state, or than asked for.
    pub accept_older: bool,
    /// Take what the guest itself damaged: LUKS2 header, keyslots, file system.
    pub accept_damaged: bool,
}

/// Writes the disk as one plain raw image. Nothing is left of it if anything is refused.
pub fn export(request: &Request) -> Result<Value, Stop> {
    let folder = Folder::new(&request.folder);
    let key = PrivateKey::read(&request.key)?;
    let recovery = folder.recovery()?;
    let document = folder.document()?;
    let disk = folder.open("disk.img")?;
    claim(&disk)?;
    check_vm(&folder, &document, &recovery, request.vm_id)?;
    let document_key = key.document_key(&document.wrapped_key)?;
    let seen = hex::encode(fingerprint(document.vm_id, &document_key));
    check_fingerprint(&seen, request.fingerprint.as_deref())?;
    let contents = document.open(&document_key).map_err(|error| refusal::document(&error))?;
    if !request.accept_older {
        check_generation(&folder, &document, request.generation)?;
    }
    let region = folder.open("boot-region.img")?;
    let passphrase = key.passphrase(&recovery.wrapped_passphrase)?;
    let mut export =
        Export::open(document.vm_id, &contents, &region, &disk).map_err(|error| refusal::export(&error))?;
    let damage = match export.check(contents.luks_uuid, &passphrase) {
        Ok(()) => None,
        Err(ExportError::Damaged(damage)) if request.accept_damaged => Some(chain(&damage)),
        Err(error) => return Err(refusal::export(&error)),
    };
    let made = write(export, &request.to)?;
    Ok(json!({
        "vmId": document.vm_id.to_string().to_uppercase(),
        "generation": document.generation,
        "image": request.to,
        "bytes": made.bytes,
        "volumeStart": made.volume_start,
        "volumeEnd": made.volume_end,
        "luksUuid": contents.luks_uuid,
        "recoveryDocumentKey": seen,
        "damage": damage,
    }))
}

/// Writes the passphrase into a new file that only this user may read.
pub fn recovery_key(recovery: &Path, key: &Path, to: &Path) -> Result<Value, Stop> {
    let key = PrivateKey::read(key)?;
    let recovery = folder::recovery(recovery)?;
    let passphrase = key.passphrase(&recovery.wrapped_passphrase)?;
    let mut file = new_file(to)?;
    file.write_all(passphrase.expose().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| Stop::io("writing the passphrase", &error))?;
    Ok(json!({"vmId": recovery.vm_id, "luksUuid": recovery.luks_uuid, "file": to}))
}

fn write(export: Export<'_>, to: &Path) -> Result<Exported, Stop> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(refusal::exists(to));
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = new_file(&part)?;
    let made = export.write(&file).map_err(|error| refusal::export(&error));
    let made = made.and_then(|made| {
        fs::rename(&part, to).map_err(|error| Stop::io("naming the image", &error))?;
        Ok(made)
    });
    if made.is_err() {
        // The reason to stop is the one to tell.
        let _ = fs::remove_file(&part);
    }
    made
}

fn new_file(path: &Path) -> Result<File, Stop> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => refusal::exists(path),
        _ => Stop::io(&format!("making {}", path.display()), &error),
    })
}

/// A running VM holds its disk; while it is exported, none can be started.
fn claim(disk: &File) -> Result<(), Stop> {
    disk.try_lock_shared().map_err(|error| match error {
        TryLockError::WouldBlock => refusal::running(),
        TryLockError::Error(error) => Stop::io("locking the disk", &error),
    })
}

fn check_vm(
    folder: &Folder,
    document: &Document,
    recovery: &Recovery,
    asked: Option<Uuid>,
) -> Result<(), Stop> {
    let state = folder.state(document.vm_id)?;
    let recovery =
        Uuid::parse_str(&recovery.vm_id).map_err(|_| refusal::other_vm(document.vm_id, &recovery.vm_id))?;
    let others = [asked, Some(recovery), state.map(|state| state.vm_id)];
    match others.into_iter().flatten().find(|other| *other != document.vm_id) {
        Some(other) => Err(refusal::other_vm(other, &document.vm_id.to_string().to_uppercase())),
        None => Ok(()),
    }
}

fn check_fingerprint(seen: &str, kept: Option<&str>) -> Result<(), Stop> {
    match kept {
        Some(kept) if !kept.eq_ignore_ascii_case(seen) => Err(refusal::fingerprint(kept, seen)),
        _ => Ok(()),
    }
}

fn check_generation(folder: &Folder, document: &Document, least: Option<u64>) -> Result<(), Stop> {
    let Some(state) = folder.state(document.vm_id)? else { return Err(refusal::no_state()) };
    if document.generation != state.generation {
        return Err(refusal::generation(&state.generation.to_string(), document.generation));
    }
    match least {
        Some(least) if document.generation < least => {
            Err(refusal::generation(&format!("{least} or newer"), document.generation))
        }
        _ => Ok(()),
    }
}
