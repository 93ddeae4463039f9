//! The whole agent with a simulated control plane, a simulated secure processor, and stand-ins for paravisor and QEMU
//! that are real processes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use internal_api::host::{Accelerator, Power, VmPhase};
use internal_api::launch::sha256_hex;
use internal_api::paravisor::Failure;
use tokio::task::JoinHandle;

use super::*;
use crate::config::tests::text;
use crate::launch::{Launch, Launched, Note, SecureProcessor};
use crate::process;
use crate::vm::test_spec;
use snp::psp::PlatformStatus;

const MANIFEST: &[u8] = b"{\"manifest\":1}";

/// What the simulated control plane wants and was told.
#[derive(Default)]
struct Told {
    wanted: Mutex<(u64, Vec<VmSpec>)>,
    seen: Mutex<Option<SyncRequest>>,
    /// Every evidence that was ever told.
    evidence: Mutex<Vec<String>>,
    changed: Notify,
}

async fn sync(State(told): State<Arc<Told>>, Json(request): Json<SyncRequest>) -> Json<SyncResponse> {
    let known = request.known_revision;
    told.evidence.lock().expect("evidence").extend(request.vms.iter().filter_map(|vm| vm.evidence.clone()));
    *told.seen.lock().expect("seen") = Some(request);
    let answer = || {
        let (revision, assignments) = told.wanted.lock().expect("wanted").clone();
        SyncResponse { revision, assignments }
    };
    if answer().revision == known {
        let _ = tokio::time::timeout(Duration::from_secs(20), told.changed.notified()).await;
    }
    Json(answer())
}

/// A processor that counts its contexts.
#[derive(Clone, Default)]
struct Processor {
    next: Arc<AtomicU64>,
    contexts: Arc<Mutex<BTreeSet<u64>>>,
    broken: Arc<Mutex<bool>>,
}

impl SecureProcessor for Processor {
    fn launch(&self, launch: &Launch, note: &Note) -> Result<Launched, Box<Failure>> {
        if *self.broken.lock().expect("broken") {
            return Err(crate::failure::transient("SecureProcessorUnavailable", "", "", "broken"));
        }
        assert!(!launch.document.is_empty());
        let context = self.next.fetch_add(1, Ordering::Relaxed);
        note(context)?;
        self.contexts.lock().expect("contexts").insert(context);
        Ok(Launched { context, guest_socket: "/nonexistent".into(), digest: String::new() })
    }

    fn decommission(&self, context: u64) {
        self.contexts.lock().expect("contexts").remove(&context);
    }

    fn status(&self) -> Result<PlatformStatus, String> {
        Err("no platform".to_owned())
    }
}

/// A host without an agent, and the agent that runs on it now and then.
struct World {
    folder: tempfile::TempDir,
    told: Arc<Told>,
    processor: Processor,
    control_plane: String,
    host: Arc<Host>,
    /// How long a guest may take to switch itself off.
    patience: u64,
    agent: Option<JoinHandle<()>>,
}

impl World {
    async fn new() -> Self {
        Self::with_patience(1).await
    }

    async fn with_patience(patience: u64) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path();
        let image = root.join("images").join(sha256_hex(MANIFEST));
        std::fs::create_dir_all(&image).expect("image folder");
        std::fs::write(image.join("disk.raw"), b"disk").expect("disk");
        std::fs::write(image.join("manifest.json"), MANIFEST).expect("manifest");
        let told = Arc::new(Told::default());
        let app = Router::new().route("/internal/hosts/host-1/sync", post(sync)).with_state(told.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let control_plane = format!("http://{}", listener.local_addr().expect("address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let processor = Processor::default();
        let host = host(root, &processor, None, patience);
        let mut world = Self { folder, told, processor, control_plane, host, patience, agent: None };
        world.start_agent(None);
        world
    }

    fn start_agent(&mut self, crash_at: Option<&str>) {
        self.host = host(self.folder.path(), &self.processor, crash_at, self.patience);
        let mut agent = Agent::open(self.host.clone()).expect("the agent");
        let client = HostClient::new(&self.control_plane, "host-1", self.host.http.clone());
        self.agent = Some(tokio::spawn(async move { agent.follow(&client).await }));
    }

    /// As a kill does: the VM tasks end wherever they are.
    async fn kill_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.abort();
            let _ = agent.await;
        }
    }

    fn want(&self, specs: Vec<VmSpec>) {
        let mut wanted = self.told.wanted.lock().expect("wanted");
        *wanted = (wanted.0 + 1, specs);
        drop(wanted);
        self.told.changed.notify_waiters();
    }

    fn state(&self) -> Option<VmState> {
        self.told.seen.lock().expect("seen").as_ref()?.vms.first().cloned()
    }

    async fn until(&self, what: &str, condition: impl Fn(Option<VmState>) -> bool) -> Option<VmState> {
        let limit = Instant::now() + Duration::from_secs(30);
        while !condition(self.state()) {
            assert!(Instant::now() < limit, "not {what} but {:?}", self.state());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.state()
    }

    async fn until_phase(&self, phase: VmPhase, generation: u64) -> VmState {
        let there = |state: Option<VmState>| {
            state.is_some_and(|state| state.phase == phase && state.generation == generation)
        };
        self.until(&format!("{phase:?} at {generation}"), there).await.expect("a state")
    }

    /// Waits for another process that is named by `argument`.
    async fn until_another(&self, argument: &str, first: &process::ProcessRef) {
        let another = |_| process::find(argument).is_some_and(|now| now != *first);
        self.until("another process", another).await;
    }

    async fn until_gone(&self) {
        self.until("gone", |state| state.is_none()).await;
        let vms = self.folder.path().join("data/vms");
        let left = std::fs::read_dir(vms).expect("list").count();
        assert_eq!(left, 0, "a folder is left");
    }

    fn vm_file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("data/vms").join(test_spec().vm_id).join(name)
    }

    /// Writes a file of the VM before or while it exists.
    fn behave(&self, name: &str, how: &str) {
        let path = self.vm_file(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        std::fs::write(path, how).expect("behaviour");
    }

    fn qemu_argument(&self) -> String {
        crate::qemu::events_argument(&self.vm_file("qemu-events"))
    }

    fn paravisors(&self) -> usize {
        count(&self.vm_file("paravisor.toml").display().to_string())
    }

    fn qemus(&self) -> usize {
        count(&self.qemu_argument())
    }

    fn contexts(&self) -> usize {
        self.processor.contexts.lock().expect("contexts").len()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for argument in [self.vm_file("paravisor.toml").display().to_string(), self.qemu_argument()] {
            while let Some(process) = process::find(&argument).filter(process::ProcessRef::alive) {
                process.kill();
            }
        }
    }
}

fn count(argument: &str) -> usize {
    let ids = std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let named = line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes());
        named && process::ProcessRef::of(*id).is_some()
    })
    .count()
}

fn host(root: &Path, processor: &Processor, crash_at: Option<&str>, patience: u64) -> Arc<Host> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config: Config = toml::from_str(&text(&root.display().to_string())).expect("valid");
    config.paravisor = stand_in::script(root, "paravisor");
    config.qemu = stand_in::script(root, "qemu");
    config.shutdown_seconds = patience;
    config.ssh_ports = [23200, 23999];
    std::fs::create_dir_all(&config.runtime_dir).expect("runtime folder");
    Arc::new(Host {
        accelerator: Accelerator::Tcg,
        cpu: "EPYC-Milan".parse().expect("a model"),
        processor: Box::new(processor.clone()),
        chip: OnceLock::new(),
        crash: CrashPlan::panicking(crash_at),
        ports: Ports::new(config.ssh_ports),
        http: reqwest::Client::new(),
        forwarder: "/nonexistent".into(),
        config,
    })
}

fn spec(generation: u64) -> VmSpec {
    VmSpec { generation, image_digest: sha256_hex(MANIFEST), ..test_spec() }
}

fn off(generation: u64) -> VmSpec {
    VmSpec { power: Power::Off, ..spec(generation) }
}

mod crash;
mod life;
mod stand_in;
