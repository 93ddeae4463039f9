//! What a phase of a VM's life ends in, as seen from outside: by the client, in the host's folders, in the process table,
//! at the secure processor. Ids, times and ports are left out.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use devkit::installation::Installation;
use serde_json::Value;
use snp::psp::{HostRequest, HostResponse};

use crate::points::Phase;
use crate::site::VM;

/// An end state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndState {
    /// What `vm show` says, if there is a VM.
    vm: Option<Shown>,
    /// How many keys the key service lists.
    keys: usize,
    /// Names in the VM's folder.
    files: Vec<String>,
    /// Names in the host's folder of VMs, and in the runtime folder: how many.
    folders: (usize, usize),
    paravisors: usize,
    machines: usize,
    /// Launch contexts at the secure processor.
    contexts: u32,
}

/// A VM as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    provisioning: Value,
    phase: Value,
    detail: Value,
    failure: Value,
    trust_root: Value,
    host: Value,
    /// The VM's key is the only version that there is of it.
    key_is_newest: bool,
    has_port: bool,
    has_evidence: bool,
}

impl EndState {
    /// Reads it; an error while a service does not answer.
    pub fn read(platform: &Installation) -> Result<Self> {
        let listed = platform.json(&["vm", "list"])?;
        let listed = listed.as_array().or_else(|| listed["value"].as_array()).context("a list")?;
        let vm = if listed.is_empty() { None } else { Some(Shown::read(platform)?) };
        let vms = platform.data().join("host/vms");
        let folders = names(&vms);
        let files = match folders.as_slice() {
            [only] => names(&vms.join(only)),
            _ => Vec::new(),
        };
        let runtime = names(&runtime_dir(platform)?);
        let runtime = runtime.iter().filter(|name| !name.ends_with(".sock")).count();
        Ok(Self {
            vm,
            keys: platform.json(&["key", "list"])?["value"].as_array().map_or(0, Vec::len),
            files,
            folders: (folders.len(), runtime),
            paravisors: platform.processes("casemate-paravisor")?.len(),
            machines: platform.processes("stand-in-qemu")?.len(),
            contexts: contexts(platform)?,
        })
    }

    /// Whether a phase can end so.
    pub fn belongs_to(&self, phase: Phase) -> bool {
        let shown = self.vm.as_ref().and_then(|vm| vm.phase.as_str());
        match phase {
            Phase::Create | Phase::Start => shown == Some("booted"),
            Phase::Stop => shown == Some("stopped"),
            Phase::Delete => self.vm.is_none(),
        }
    }
}

impl Shown {
    fn read(platform: &Installation) -> Result<Self> {
        let vm = platform.json(&["vm", "show", VM])?;
        let ours = &vm["properties"]["casemate"];
        let id = vm["properties"]["vmId"].as_str().context("a VM has an id")?.to_lowercase();
        let key = platform.json(&["key", "show", &format!("vm-{id}")])?;
        Ok(Self {
            provisioning: vm["properties"]["provisioningState"].clone(),
            phase: ours["hostPhase"].clone(),
            detail: ours["detail"].clone(),
            failure: ours["failure"].clone(),
            trust_root: ours["trustRoot"].clone(),
            host: ours["host"].clone(),
            key_is_newest: key["key"]["kid"] == ours["keyId"],
            has_port: ours["sshPort"].is_u64(),
            has_evidence: ours["evidence"].is_object(),
        })
    }
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn contexts(platform: &Installation) -> Result<u32> {
    let mut stream = UnixStream::connect(runtime_dir(platform)?.join("secure-processor.sock"))?;
    HostRequest::PlatformStatus.write(&mut stream)?;
    match HostResponse::read(&mut stream)? {
        HostResponse::Status(status) => Ok(status.guests),
        other => bail!("the secure processor answered {other:?}"),
    }
}

/// The folder of sockets, as the supervisor's plan names it.
fn runtime_dir(platform: &Installation) -> Result<PathBuf> {
    let plan = std::fs::read_to_string(platform.data().join("supervisor.toml"))?;
    let line = plan.lines().find_map(|line| line.strip_prefix("runtime_dir = "));
    Ok(PathBuf::from(line.context("the supervisor's plan names it")?.trim_matches('"')))
}
