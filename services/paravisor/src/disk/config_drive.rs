//! The drive with the tenant's provisioning data: a small FAT volume labelled `CIDATA`, as cloud-init's NoCloud data
//! source and azure-init know it. Made in memory from data whose hash HOST_DATA carries; read-only.
//!
//! The tenant's `customData` is given to cloud-init as it is, whatever its kind (cloud-config, script, MIME document).

use std::io::{self, Cursor, Write as _};

use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use internal_api::launch::ProvisioningData;
use public_api::encoding;
use serde_json::json;

use super::BlockDevice;

/// FAT12 with 512-byte sectors; custom data is at most 64 KiB.
const SIZE: u64 = 1 << 20;
const LABEL: [u8; 11] = *b"CIDATA     ";

/// Why no drive could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigDriveError {
    /// `customData` does not decode.
    #[error("customData is not base64")]
    CustomData(#[source] encoding::NotBase64),
    /// The content does not fit, or the file system could not be written.
    #[error("the config drive could not be written ({0} bytes of user data)")]
    FileSystem(usize, #[source] io::Error),
}

/// The drive's bytes.
pub struct ConfigDrive(Vec<u8>);

impl ConfigDrive {
    /// Makes the drive of the VM `vm_id`.
    pub fn new(vm_id: &str, data: &ProvisioningData) -> Result<Self, ConfigDriveError> {
        let custom = data.custom_data.as_deref().map(encoding::from_base64_any).transpose();
        let custom = custom.map_err(ConfigDriveError::CustomData)?;
        let ours = cloud_config(data);
        let meta = json!({ "instance-id": vm_id, "local-hostname": data.computer_name }).to_string();
        let mut files = vec![("meta-data", meta.into_bytes())];
        match custom {
            None => files.push(("user-data", ours)),
            // A MIME document cannot be a part of another one; cloud-init merges it over the vendor data.
            Some(custom) if is_mime(&custom) => {
                files.extend([("user-data", custom), ("vendor-data", ours)]);
            }
            Some(custom) => files.push(("user-data", multipart(&custom, &ours))),
        }
        let size = files.iter().map(|(_, bytes)| bytes.len()).sum();
        image(&files).map(Self).map_err(|error| ConfigDriveError::FileSystem(size, error))
    }

    /// SHA-256 (base64url) of the whole drive, as the runtime claims name it.
    pub fn digest(&self) -> String {
        encoding::to_base64url(&vtpm::pcr::sha256(&self.0))
    }
}

/// Host name, user, keys as cloud-config. JSON is YAML, so nothing in the data can break out of its place.
fn cloud_config(data: &ProvisioningData) -> Vec<u8> {
    let config = json!({
        "hostname": data.computer_name,
        "ssh_pwauth": false,
        "disable_root": true,
        "users": [{
            "name": data.admin_username,
            "gecos": "Administrator",
            "shell": "/bin/bash",
            "lock_passwd": true,
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "ssh_authorized_keys": data.ssh_public_keys,
        }],
        // Lists of an earlier part (the tenant's) are kept and ours appended; other values of theirs win.
        "merge_how": [
            { "name": "list", "settings": ["append"] },
            { "name": "dict", "settings": ["no_replace", "recurse_list"] },
        ],
    });
    format!("#cloud-config\n{config}\n").into_bytes()
}

fn is_mime(custom: &[u8]) -> bool {
    let head = custom.get(..custom.len().min(64)).unwrap_or_default().to_ascii_lowercase();
    head.starts_with(b"content-type:") || head.starts_with(b"mime-version:")
}

fn multipart(custom: &[u8], ours: &[u8]) -> Vec<u8> {
    let mut text = "Content-Type: multipart/mixed; boundary=\"casemate\"\nMIME-Version: 1.0\n\n".to_owned();
    for (kind, content) in [("text/plain", custom), ("text/cloud-config", ours)] {
        // Base64 has no hyphen, so the boundary cannot occur in a part.
        text += &format!("--casemate\nContent-Type: {kind}\nContent-Transfer-Encoding: base64\n\n");
        let encoded = encoding::to_base64(content);
        for line in encoded.as_bytes().chunks(76) {
            text += &String::from_utf8_lossy(line);
            text.push('\n');
        }
    }
    text += "--casemate--\n";
    text.into_bytes()
}

fn image(files: &[(&str, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; usize::try_from(SIZE).map_err(io::Error::other)?]);
    fatfs::format_volume(&mut disk, FormatVolumeOptions::new().volume_label(LABEL).volume_id(0x0c1d_a7a0))?;
    let volume = FileSystem::new(&mut disk, FsOptions::new().time_provider(&FIXED_TIME))?;
    for (name, content) in files {
        let mut file = volume.root_dir().create_file(name)?;
        file.truncate()?;
        file.write_all(content)?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(disk.into_inner())
}

/// The same data shall always make the same drive.
#[derive(Debug)]
struct FixedTime;

static FIXED_TIME: FixedTime = FixedTime;

impl TimeProvider for FixedTime {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

impl BlockDevice for ConfigDrive {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_only(&self) -> bool {
        true
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = start.checked_add(buffer.len()).and_then(|end| self.0.get(start..end));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn write_zeroes(&self, _offset: u64, _length: u64, _keep_space: bool) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn discard(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn data(custom: Option<&[u8]>) -> ProvisioningData {
        ProvisioningData {
            version: 1,
            computer_name: "web-1".to_owned(),
            admin_username: "azureuser".to_owned(),
            ssh_public_keys: vec!["ssh-ed25519 AAAA a: \"b\"\n#cloud-config".to_owned()],
            custom_data: custom.map(encoding::to_base64),
        }
    }

    fn file(drive: &ConfigDrive, name: &str) -> Option<String> {
        let mut bytes = drive.0.clone();
        let volume = FileSystem::new(Cursor::new(&mut bytes), FsOptions::new()).unwrap();
        assert_eq!(volume.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
        let mut text = String::new();
        volume.root_dir().open_file(name).ok()?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn user_keys_and_host_name_are_served_as_one_json_document() {
        let drive = ConfigDrive::new("VM-ID", &data(None)).unwrap();
        let user = file(&drive, "user-data").unwrap();
        let json: serde_json::Value =
            serde_json::from_str(user.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert_eq!(json["users"][0]["ssh_authorized_keys"][0], data(None).ssh_public_keys[0]);
        assert_eq!(json["users"][0]["name"], "azureuser");
        let meta: serde_json::Value = serde_json::from_str(&file(&drive, "meta-data").unwrap()).unwrap();
        assert_eq!(meta["instance-id"], "VM-ID");
        assert_eq!(file(&drive, "vendor-data"), None);
    }

    #[test]
    fn a_script_as_custom_data_is_a_part_of_its_own() {
        let drive = ConfigDrive::new("VM-ID", &data(Some(b"#!/bin/sh\necho hi\n"))).unwrap();
        let user = file(&drive, "user-data").unwrap();
        assert!(user.starts_with("Content-Type: multipart/mixed"));
        assert!(user.contains(&encoding::to_base64(b"#!/bin/sh\necho hi\n")));
    }

    #[test]
    fn a_mime_document_is_handed_on_byte_for_byte() {
        let mime = b"Content-Type: multipart/mixed; boundary=\"x\"\n\n--x--\n";
        let drive = ConfigDrive::new("VM-ID", &data(Some(mime))).unwrap();
        assert_eq!(file(&drive, "user-data").unwrap().as_bytes(), mime);
        assert!(file(&drive, "vendor-data").unwrap().contains("azureuser"));
    }

    #[test]
    fn the_same_data_makes_the_same_drive() {
        let first = ConfigDrive::new("VM-ID", &data(None)).unwrap();
        assert!(first.0 == ConfigDrive::new("VM-ID", &data(None)).unwrap().0);
    }

    #[test]
    fn custom_data_that_does_not_fit_or_decode_is_refused() {
        let large = vec![b'x'; 2 << 20];
        let error = ConfigDrive::new("VM-ID", &data(Some(&large))).err().unwrap();
        assert!(matches!(error, ConfigDriveError::FileSystem(..)));
        let mut broken = data(None);
        broken.custom_data = Some("%%%".to_owned());
        assert!(matches!(ConfigDrive::new("VM-ID", &broken).err(), Some(ConfigDriveError::CustomData(_))));
    }

    #[test]
    fn a_read_beyond_the_end_fails() {
        let drive = ConfigDrive::new("VM-ID", &data(None)).unwrap();
        assert!(drive.read_at(&mut [0; 2], SIZE - 1).is_err());
    }
}
