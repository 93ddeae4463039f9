//! The tenant's way back to the data without this platform: a keyslot whose passphrase is wrapped to the tenant's key.
//!
//! Three public files lie beside the guest state: the wrapped passphrase with the place of the volume on the disk; the LUKS2
//! header as it was made, with a MAC in the former, for whoever has nothing but `openssl` and `cryptsetup`; and the
//! [`super::recovery_document`], with which the whole disk is exported. Never the header as it is *now*: the guest may have
//! added a passphrase that can be guessed, and the keyslots made here hold 256 random bits each.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use sealed_disk::secret::Passphrase;
use serde::{Deserialize, Serialize};
use x509_cert::der::Document;

use super::launch::{Launch, malformed};
use crate::failure::Stop;

/// The public file beside the guest state.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recovery {
    /// Form of this document: 1.
    pub version: u32,
    /// Upper-case GUID of the VM.
    pub vm_id: String,
    /// The volume.
    pub luks_uuid: String,
    /// Where on the disk the header belongs; the data follow 16 MiB behind.
    pub header_start: u64,
    /// How the passphrase is wrapped: `RSA-OAEP-256`.
    pub alg: String,
    /// RSA-OAEP (SHA-256) of the passphrase's text.
    #[serde(with = "padded_base64")]
    pub wrapped_passphrase: Vec<u8>,
    /// HMAC-SHA256 of the published LUKS2 header under the document key, hex. Missing for VMs that were made without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_mac: Option<String>,
}

/// Text of the recovery file, if the tenant named a recovery key.
pub fn wrap(
    launch: &Launch,
    header_start: u64,
    passphrase: &Passphrase,
    header_mac: Option<String>,
) -> Result<Option<String>, Stop> {
    let Some(wrapped_passphrase) = wrap_bytes(launch, passphrase.expose().as_bytes())? else {
        return Ok(None);
    };
    let recovery = Recovery {
        version: 1,
        vm_id: launch.document.vm_id.clone(),
        luks_uuid: launch.manifest.luks_uuid.to_string(),
        header_start,
        alg: "RSA-OAEP-256".to_owned(),
        wrapped_passphrase,
        header_mac,
    };
    serde_json::to_string(&recovery).map(Some).map_err(|error| malformed("recoveryKey", &error.to_string()))
}

/// A short secret wrapped to the tenant's recovery key, if there is one (RSA-OAEP with SHA-256).
pub(super) fn wrap_bytes(launch: &Launch, secret: &[u8]) -> Result<Option<Vec<u8>>, Stop> {
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
    key.encrypt(&OAEP_SHA256_MGF1SHA256, secret, &mut wrapped, None)
        .map_err(|_| unusable("it cannot encrypt the passphrase"))?;
    Ok(Some(wrapped))
}

/// With padding, as `base64 -d` of a shell reads it.
mod padded_base64 {
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&public_api::encoding::to_base64(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u8>, D::Error> {
        public_api::encoding::base64url::deserialize(input)
    }
}

/// Where the file with the wrapped passphrase lies.
pub fn path(guest_state: &Path) -> PathBuf {
    beside(guest_state, ".recovery.json")
}

/// Where the LUKS2 header lies.
pub fn header_path(guest_state: &Path) -> PathBuf {
    beside(guest_state, ".luks2-header")
}

pub(super) fn beside(guest_state: &Path, suffix: &str) -> PathBuf {
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

pub(super) fn publish_at(path: &Path, bytes: &[u8]) -> Result<(), Stop> {
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
