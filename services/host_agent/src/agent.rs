//! The agent as a whole: finds its VMs, follows the control plane's assignments, reports. It goes on through an outage of
//! the control plane with what was wanted last.

mod drain;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use internal_api::client::HostClient;
use internal_api::host::{SyncRequest, SyncResponse, VmSpec, VmState};
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::accelerator;
use crate::chip;
use crate::config::Config;
use crate::crash::CrashPlan;
use crate::host::Host;
use crate::launch::SocketProcessor;
use crate::ports::Ports;
use crate::vm::VmHandle;
use crate::vm::dir::{self, VmDir};

pub use drain::drain;

/// How long the control plane may keep a sync open.
const WAIT_SECONDS: u32 = 20;
/// Beyond `WAIT_SECONDS`, for the network.
const HTTP_LIMIT: Duration = Duration::from_secs(50);
/// Shortest time between two syncs: changes within it are told together.
const SHORTEST: Duration = Duration::from_millis(50);
/// Longest pause while the control plane does not answer.
const LONGEST: Duration = Duration::from_secs(10);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent has the data directory.
    #[error("the data directory {0} is held by the host agent with process id {1}")]
    Held(PathBuf, String),
    /// A VM did not stop in time.
    #[error("these VMs did not stop in time: {0}")]
    StillRunning(String),
    /// A file that is needed cannot be read or written.
    #[error("cannot use {0}")]
    File(PathBuf, #[source] io::Error),
    /// The CPU model is unknown.
    #[error("unknown cpu_model")]
    Cpu(#[from] snp::launch::UnknownCpuModel),
    /// The client certificate, its key or the CA cannot be used.
    #[error("the TLS files cannot be used")]
    Tls(#[from] reqwest::Error),
}

/// Runs the agent until it is told to end. The VMs run on.
pub async fn run(config: Config) -> Result<(), AgentError> {
    let _lock = hold(&config)?;
    let client = HostClient::new(config.control_plane_url.as_str(), &config.name, http(&config)?);
    let mut agent = Agent::open(host(config).await?)?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| AgentError::File("SIGTERM".into(), error))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| AgentError::File("SIGINT".into(), error))?;
    tokio::select! {
        () = agent.follow(&client) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("the agent ends, its VMs run on");
    Ok(())
}

async fn host(config: Config) -> Result<Arc<Host>, AgentError> {
    let probed = accelerator::probe(&config).await;
    tracing::info!("{probed}");
    let forwarder =
        std::env::current_exe().map_err(|error| AgentError::File("/proc/self/exe".into(), error))?;
    Ok(Arc::new(Host {
        accelerator: probed.accelerator,
        cpu: config.cpu_model.parse()?,
        processor: Box::new(SocketProcessor::new(config.secure_processor.clone())),
        chip: OnceLock::new(),
        crash: CrashPlan::default(),
        ports: Ports::new(config.ssh_ports),
        http: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
        forwarder,
        config,
    }))
}

/// The HTTP client with this host's identity.
fn http(config: &Config) -> Result<reqwest::Client, AgentError> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| AgentError::File(path.clone(), error));
    let identity = [read(&config.tls_key)?, read(&config.tls_certificate)?].concat();
    let roots = reqwest::Certificate::from_pem_bundle(&read(&config.tls_ca)?)?;
    Ok(reqwest::Client::builder()
        .tls_certs_only(roots)
        .identity(reqwest::Identity::from_pem(&identity)?)
        .timeout(HTTP_LIMIT)
        .build()?)
}

/// Takes the data directory for this process; the lock goes with the process.
fn hold(config: &Config) -> Result<Flock<File>, AgentError> {
    let path = config.data_dir.join("agent.lock");
    let open = || {
        std::fs::create_dir_all(&config.data_dir)?;
        std::fs::create_dir_all(&config.runtime_dir)?;
        File::options().read(true).write(true).create(true).truncate(false).open(&path)
    };
    let file = open().map_err(|error| AgentError::File(path.clone(), error))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let note = lock.set_len(0).and_then(|()| write!(&mut *lock, "{}", std::process::id()));
            note.map_err(|error| AgentError::File(path, error))?;
            Ok(lock)
        }
        Err((mut file, _)) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Err(AgentError::Held(config.data_dir.clone(), holder))
        }
    }
}

/// The VMs and what was told about them.
struct Agent {
    host: Arc<Host>,
    vms: BTreeMap<String, VmHandle>,
    changed: Arc<Notify>,
    known_revision: u64,
    /// Evidence that the control plane has.
    told: BTreeMap<String, String>,
}

impl Agent {
    /// Takes up the VMs that have a folder.
    fn open(host: Arc<Host>) -> Result<Self, AgentError> {
        let config = &host.config;
        let known = dir::known(&config.data_dir);
        let known = known.map_err(|error| AgentError::File(config.data_dir.clone(), error))?;
        let dirs = known.iter().filter_map(|id| VmDir::new(&config.data_dir, &config.runtime_dir, id));
        let specs: Vec<VmSpec> = dirs.filter_map(|dir| dir.spec()).collect();
        let mut agent = Self {
            host,
            vms: BTreeMap::new(),
            changed: Arc::default(),
            known_revision: 0,
            told: BTreeMap::new(),
        };
        for spec in specs {
            tracing::info!(vm = spec.vm_id, name = spec.name, "found");
            agent.want(spec);
        }
        Ok(agent)
    }

    fn want(&mut self, spec: VmSpec) {
        if let Some(vm) = self.vms.get(&spec.vm_id).filter(|vm| !vm.ended()) {
            return vm.want(Some(spec));
        }
        let config = &self.host.config;
        let Some(dir) = VmDir::new(&config.data_dir, &config.runtime_dir, &spec.vm_id) else {
            return tracing::error!(vm = spec.vm_id, "an assignment's VM id is no upper-case GUID");
        };
        let id = spec.vm_id.clone();
        let vm = VmHandle::start(self.host.clone(), dir, spec, self.changed.clone());
        self.vms.insert(id, vm);
    }

    /// Syncs for ever. A change of a VM is told at once: the open sync is given up for a new one.
    async fn follow(&mut self, client: &HostClient) {
        let mut pause = Duration::ZERO;
        loop {
            self.forget_ended();
            chip::see(&self.host).await;
            let request = self.request();
            let changed = self.changed.clone();
            let answer = tokio::select! {
                answer = client.sync(&request) => Some(answer),
                () = async { tokio::time::sleep(SHORTEST).await; changed.notified().await } => None,
            };
            match answer {
                Some(Ok(answer)) => {
                    pause = Duration::ZERO;
                    self.remember(&request);
                    self.take(answer);
                }
                Some(Err(error)) => {
                    pause = (pause * 2).clamp(Duration::from_millis(500), LONGEST);
                    tracing::warn!(%error, cause = ?std::error::Error::source(&error), "no sync");
                    tokio::time::sleep(pause).await;
                }
                None => {}
            }
        }
    }

    fn forget_ended(&mut self) {
        self.vms.retain(|_, vm| !vm.ended());
        self.told.retain(|id, _| self.vms.contains_key(id));
    }

    fn request(&self) -> SyncRequest {
        let mut vms: Vec<VmState> = self.vms.values().map(VmHandle::state).collect();
        for vm in &mut vms {
            if vm.evidence.as_ref() == self.told.get(&vm.vm_id) {
                vm.evidence = None;
            }
        }
        SyncRequest {
            capacity: self.host.capacity(),
            vms,
            known_revision: self.known_revision,
            wait_seconds: WAIT_SECONDS,
        }
    }

    fn remember(&mut self, request: &SyncRequest) {
        for vm in &request.vms {
            if let Some(evidence) = &vm.evidence {
                self.told.insert(vm.vm_id.clone(), evidence.clone());
            }
        }
    }

    /// Acts on the whole list: what is missing in it shall be gone, with or without a spec on disk.
    fn take(&mut self, answer: SyncResponse) {
        self.known_revision = answer.revision;
        let wanted: Vec<String> = answer.assignments.iter().map(|spec| spec.vm_id.clone()).collect();
        for (id, vm) in &self.vms {
            if !wanted.contains(id) {
                vm.want(None);
            }
        }
        for spec in answer.assignments {
            self.want(spec);
        }
        self.remove_unknown();
    }

    /// Folders without a readable spec hold no process: nothing is started before the spec is written.
    fn remove_unknown(&self) {
        let config = &self.host.config;
        for id in dir::known(&config.data_dir).unwrap_or_default() {
            let unknown = !self.vms.contains_key(&id);
            if let Some(dir) = VmDir::new(&config.data_dir, &config.runtime_dir, &id).filter(|_| unknown)
                && let Err(error) = dir.remove()
            {
                tracing::warn!(vm = id, %error, "a stale folder could not be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests;
