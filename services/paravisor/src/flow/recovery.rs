//! The tenant's way back to the data without this platform: a keyslot whose passphrase is wrapped to the tenant's key.
//!
//! Two public files lie beside the guest state: the wrapped passphrase with the place of the volume on the disk, and the
//! LUKS2 header, which on the disk itself is only in the boot region. Header and disk make a plain LUKS2 volume again, which
//! stock `cryptsetup` opens with the passphrase.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use public_api::encoding::base64url;
use sealed_disk::secret::Passphrase;
use serde::Serialize;
use x509_cert::der::Document;

use super::launch::{Launch, malformed};
use crate::failure::Stop;

/// The public file beside the guest state.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Recovery<'a> {
    version: u32,
    vm_id: &'a str,
    luks_uuid: String,
    /// Where on the disk the header belongs; the data follow 16 MiB behind.
    header_start: u64,
    alg: &'static str,
    /// RSA-OAEP (SHA-256) of the passphrase's text.
    #[serde(with = "base64url")]
    wrapped_passphrase: Vec<u8>,
}

/// Text of the recovery file, if the tenant named a recovery key.
pub fn wrap(launch: &Launch, header_start: u64, passphrase: &Passphrase) -> Result<Option<String>, Stop> {
    let Some(pem) = &launch.document.recovery_key else { return Ok(None) };
    let unusable = |why: &str| malformed("recoveryKey", why);
    let (label, der) = Document::from_pem(pem).map_err(|_| unusable("it is not PEM"))?;
    if label != "PUBLIC KEY" {
        return Err(unusable("it is not a SubjectPublicKeyInfo"));
    }
    let key = PublicEncryptingKey::from_der(der.as_bytes()).map_err(|_| unusable("it is not an RSA key"))?;
    if key.key_size_bits() < 2048 {
        return Err(unusable("it is shorter than 2048 bits"));
    }
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| unusable("it cannot encrypt"))?;
    let mut wrapped = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, passphrase.expose().as_bytes(), &mut wrapped, None)
        .map_err(|_| unusable("it cannot encrypt the passphrase"))?;
    let recovery = Recovery {
        version: 1,
        vm_id: &launch.document.vm_id,
        luks_uuid: launch.manifest.luks_uuid.to_string(),
        header_start,
        alg: "RSA-OAEP-256",
        wrapped_passphrase: wrapped,
    };
    serde_json::to_string(&recovery).map(Some).map_err(|error| unusable(&error.to_string()))
}

/// Where the file with the wrapped passphrase lies.
pub fn path(guest_state: &Path) -> PathBuf {
    beside(guest_state, ".recovery.json")
}

/// Where the LUKS2 header lies.
pub fn header_path(guest_state: &Path) -> PathBuf {
    beside(guest_state, ".luks2-header")
}

fn beside(guest_state: &Path, suffix: &str) -> PathBuf {
    let mut name = guest_state.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes the file with the wrapped passphrase, if it is not there as it should be.
pub fn publish(guest_state: &Path, text: &str) -> Result<(), Stop> {
    publish_at(&path(guest_state), text.as_bytes())
}

/// Writes the LUKS2 header as it was made. Later changes of the guest's do not matter to the recovery keyslot.
pub fn publish_header(guest_state: &Path, header: &[u8]) -> Result<(), Stop> {
    publish_at(&header_path(guest_state), header)
}

fn publish_at(path: &Path, bytes: &[u8]) -> Result<(), Stop> {
    if fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    replace(path, bytes).map_err(|error| Stop::io("writing a recovery file", &error))
}

/// Replaces a file atomically and durably.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

/// Makes a renamed file's name durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
