//! One VM's files and sockets, and the host's own record of it.
//!
//! ```text
//! data_dir/vms/<VM id>/      spec.json record.json            what shall be, what the host did
//!                            launch-document.json provisioning-data.json trust-bundle.pem release-token paravisor.toml
//!                            disk.img guest-state.vmgs boot-region.img vars.fd    the paravisor's; ciphertext but vars
//!                            guest-state.vmgs.*    the paravisor's, for the tenant's recovery key (docs/recovery.md)
//!                            serial.log events.jsonl qemu-events.jsonl paravisor.log qemu.log
//! runtime_dir/<VM id>/       *.sock, qemu-events.in
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use internal_api::host::VmSpec;
use internal_api::paravisor::Failure;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure;
use crate::process::ProcessRef;

/// Paths of one VM.
#[derive(Clone, Debug)]
pub struct VmDir {
    data: PathBuf,
    runtime: PathBuf,
}

/// What the host did for the VM; survives the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Record {
    /// Generation whose wanted state was reached.
    pub reached: u64,
    /// Restarts carried out.
    pub restarts: u64,
    /// Launch context at the secure processor.
    pub context: Option<u64>,
    /// The paravisor that was started last.
    pub paravisor: Option<ProcessRef>,
    /// The QEMU that was started last.
    pub qemu: Option<ProcessRef>,
    /// Whether the paravisor has to be told that the guest was reset before QEMU may start again.
    pub reset_pending: bool,
    /// Whether the paravisor was told that the guest has stopped.
    pub told_stopped: bool,
    /// Generation under which the guest switched itself off: it stays off until the generation changes.
    pub guest_off: Option<u64>,
    /// When a guest that was asked to stop is switched off (Unix milliseconds).
    pub stop_deadline: Option<u64>,
    /// When the power button of a guest that does not react is pressed again (Unix milliseconds).
    pub press_again_at: Option<u64>,
    /// The last fault.
    pub fault: Option<Fault>,
    /// `VolumeOpened` events that were there when QEMU was started last.
    pub volumes_before: usize,
    /// Loopback port of the guest's SSH.
    pub ssh_port: Option<u16>,
    /// Milliseconds by step of the last start.
    pub timings: BTreeMap<String, u64>,
    /// The key that the guest state was last said to be under.
    pub key_in_use: Option<String>,
    /// The key that a running paravisor was asked to move to.
    pub key_asked: Option<KeyAsked>,
}

/// A key that was asked for, and when it may be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyAsked {
    /// URL of the key.
    pub key_id: String,
    /// Unix milliseconds before which it is not asked for again.
    pub retry_at: u64,
}

/// A fault and when to try again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Generation of the spec under which it happened.
    pub generation: u64,
    /// Faults in a row.
    pub count: u32,
    /// Unix milliseconds before which nothing is tried.
    pub retry_at: u64,
    /// What happened.
    pub failure: Failure,
}

impl VmDir {
    /// The folders of `vm_id`, which must be a GUID: it becomes a part of paths.
    pub fn new(data_dir: &Path, runtime_dir: &Path, vm_id: &str) -> Option<Self> {
        let id = uuid::Uuid::try_parse(vm_id).ok()?.hyphenated().to_string().to_uppercase();
        let data = data_dir.join("vms").join(&id);
        (id == vm_id).then(|| Self { data, runtime: runtime_dir.join(id) })
    }

    /// A file of the VM.
    pub fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// A socket of the VM.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.runtime.join(name)
    }

    /// Makes both folders, readable by this user only.
    pub fn create(&self) -> Result<(), Box<Failure>> {
        for folder in [&self.data, &self.runtime] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| failure::io("make the VM's folder", folder, &e))?;
        }
        Ok(())
    }

    /// Replaces a file so that a crash leaves the old or the new content.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Box<Failure>> {
        let (path, fresh) = (self.file(name), self.file(&format!("{name}.new")));
        let write = || {
            let mut file =
                File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.data)?.sync_all()
        };
        write().map_err(|e| failure::io("write the VM's files", &path, &e))
    }

    /// Writes `value` as JSON.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), Box<Failure>> {
        let bytes = serde_json::to_vec_pretty(value).expect("plain structs have a JSON form");
        self.write(name, &bytes)
    }

    /// The wanted state as last written, if there is one.
    pub fn spec(&self) -> Option<VmSpec> {
        self.read_json("spec.json")
    }

    /// The host's record; a fresh one when there is none.
    pub fn record(&self) -> Record {
        self.read_json("record.json").unwrap_or_default()
    }

    /// A fresh log file that replaces the one of the last start.
    pub fn log(&self, name: &str) -> Result<File, Box<Failure>> {
        let path = self.file(name);
        let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        opened.map_err(|e| failure::io("open a log", &path, &e))
    }

    /// Removes everything. The data folder loses its name first, so that a crash leaves nothing that looks like a VM.
    pub fn remove(&self) -> io::Result<()> {
        let grave = self.data.with_extension("deleted");
        match fs::rename(&self.data, &grave) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for folder in [&grave, &self.runtime] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.file(name);
        let bytes = fs::read(&path).ok()?;
        serde_json::from_slice(&bytes)
            .map_err(
                |error| tracing::warn!(path = %path.display(), %error, "a file of the host is malformed"),
            )
            .ok()
    }
}

/// Ids of the VMs that have a folder; remains of interrupted removals are removed.
pub fn known(data_dir: &Path) -> io::Result<Vec<String>> {
    let folder = data_dir.join("vms");
    fs::create_dir_all(&folder)?;
    let mut ids = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deleted") {
            fs::remove_dir_all(&path)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            ids.push(name.to_owned());
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0D6F2B8C-4E0B-4E57-9B5C-2C7D9A1E3F00";

    #[test]
    fn an_id_that_is_no_upper_case_guid_has_no_folder() {
        for id in ["", "..", "../../etc", &ID.to_lowercase(), &format!("{ID}/x"), &ID.replace('-', "")] {
            assert!(VmDir::new(Path::new("/d"), Path::new("/r"), id).is_none(), "{id}");
        }
        assert!(VmDir::new(Path::new("/d"), Path::new("/r"), ID).is_some());
    }

    #[test]
    fn a_record_is_read_back_and_a_malformed_one_is_a_fresh_one() {
        let folder = tempfile::tempdir().expect("folder");
        let dir = VmDir::new(folder.path(), &folder.path().join("run"), ID).expect("a GUID");
        dir.create().expect("create");
        let record = Record { reached: 7, ssh_port: Some(22200), ..Record::default() };
        dir.write_json("record.json", &record).expect("write");
        assert_eq!(dir.record(), record);
        dir.write("record.json", b"{\"reached\":").expect("write");
        assert_eq!(dir.record(), Record::default());
    }

    #[test]
    fn a_removed_vm_leaves_nothing_even_when_the_removal_was_interrupted() {
        let folder = tempfile::tempdir().expect("folder");
        let dir = VmDir::new(folder.path(), &folder.path().join("run"), ID).expect("a GUID");
        dir.create().expect("create");
        fs::rename(dir.file(""), folder.path().join("vms").join(format!("{ID}.deleted"))).expect("rename");
        assert_eq!(known(folder.path()).expect("list"), Vec::<String>::new());
        dir.create().expect("create");
        assert_eq!(known(folder.path()).expect("list"), vec![ID.to_owned()]);
        dir.remove().expect("remove");
        dir.remove().expect("again");
        assert_eq!(fs::read_dir(folder.path().join("vms")).expect("list").count(), 0);
    }
}
