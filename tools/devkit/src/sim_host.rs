//! A simulated host agent: the real host interface, real mutual TLS, and a VM that takes no time.
//!
//! It keeps what a host keeps (assignments, phases, restarts) and checks what a host must check (that the provisioning data
//! and the trust bundle are those of the launch document). It starts nothing and attests nothing: its evidence is a bundle
//! of the right shape under which nothing verifies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use internal_api::client::HostClient;
use internal_api::host::{
    Accelerator, HostCapacity, KeyState, Platform, Power, SyncRequest, SyncResponse, VmPhase, VmSpec, VmState,
};
use internal_api::launch::{LaunchDocument, sha256_hex};
use internal_api::paravisor::Failure;
use public_api::attestation::{CLAIM_TRUST_ROOT, EvidenceBundle};
use public_api::encoding::to_base64url;
use tokio::task::JoinHandle;

/// How a simulated host signs in and what it offers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base URL of the host interface.
    pub url: String,
    /// The host's name; its certificate must name it.
    pub name: String,
    /// PEM bundle under which the host interface verifies.
    pub ca: String,
    /// PEM of the host's certificate and key.
    pub identity: String,
    /// What it offers.
    pub capacity: HostCapacity,
    /// How long a poll waits.
    pub wait_seconds: u32,
}

/// A small development host in the region `local`.
pub fn development_capacity(vcpus: u32, memory_mib: u64) -> HostCapacity {
    HostCapacity {
        region: "local".to_owned(),
        platform: Platform::Development,
        accelerator: Accelerator::Tcg,
        vcpus,
        memory_mib,
        chip: None,
    }
}

/// What the host has; survives [`SimHost::crash`], as disks and running VMs do.
#[derive(Debug, Default)]
pub struct World {
    /// VMs by id.
    pub vms: BTreeMap<String, SimVm>,
    /// VMs by name that fail when they are started, and why.
    pub failing: BTreeMap<String, Failure>,
    /// While set, nothing moves on: VMs stay in their phases.
    pub frozen: bool,
    /// While set, running VMs stay under their keys.
    pub keys_stay: bool,
    /// How many VMs were removed with their disks.
    pub removed: u64,
}

/// A VM of the host.
#[derive(Clone, Debug)]
pub struct SimVm {
    /// Newest spec.
    pub spec: VmSpec,
    /// Phase.
    pub phase: VmPhase,
    /// Restarts carried out.
    pub restarts: u64,
    /// Launches carried out.
    pub launches: u64,
    /// Generation that the phase belongs to.
    pub generation: u64,
    /// Key that its guest state is under.
    pub key_in_use: Option<String>,
    failure: Option<Failure>,
    evidence_sent: bool,
}

/// A running agent.
pub struct SimHost {
    options: Options,
    world: Arc<Mutex<World>>,
    task: JoinHandle<()>,
}

impl SimHost {
    /// Starts an agent with an empty world.
    pub fn start(options: Options) -> Result<Self> {
        Self::resume(options, Arc::default())
    }

    /// Starts an agent that finds a world of before.
    pub fn resume(options: Options, world: Arc<Mutex<World>>) -> Result<Self> {
        let client = client(&options)?;
        let task = tokio::spawn(run(client, options.clone(), world.clone()));
        Ok(Self { options, world, task })
    }

    /// What the host has now.
    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Ends the agent at once and leaves its world.
    pub fn crash(self) -> (Options, Arc<Mutex<World>>) {
        (self.options.clone(), self.world.clone())
    }
}

impl Drop for SimHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client of the host interface with the host's certificate.
pub fn client(options: &Options) -> Result<HostClient> {
    let roots = reqwest::Certificate::from_pem_bundle(options.ca.as_bytes()).context("reading the CA")?;
    let identity =
        reqwest::Identity::from_pem(options.identity.as_bytes()).context("reading the host's identity")?;
    let http = reqwest::Client::builder()
        .tls_certs_only(roots)
        .identity(identity)
        .no_proxy()
        .timeout(Duration::from_secs(60))
        .build()
        .context("setting up the client")?;
    Ok(HostClient::new(&options.url, &options.name, http))
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(client: HostClient, options: Options, world: Arc<Mutex<World>>) {
    let mut known_revision = 0;
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let request = lock(&world).report(&options, known_revision);
        let hurry = request.wait_seconds == 0;
        match client.sync(&request).await {
            Ok(answer) => {
                known_revision = answer.revision;
                lock(&world).apply(answer, &request);
                if hurry {
                    pause.tick().await;
                }
            }
            Err(error) => {
                tracing::debug!("sync failed: {error}");
                pause.tick().await;
            }
        }
    }
}

impl World {
    /// What the agent reports: everything it has.
    pub fn report(&self, options: &Options, known_revision: u64) -> SyncRequest {
        let moving = self.vms.values().any(SimVm::is_moving);
        SyncRequest {
            capacity: options.capacity.clone(),
            vms: self.vms.values().map(SimVm::state).collect(),
            known_revision,
            wait_seconds: if moving { 0 } else { options.wait_seconds },
        }
    }

    /// Takes over the assignments and moves every VM one phase on.
    pub fn apply(&mut self, answer: SyncResponse, sent: &SyncRequest) {
        for state in &sent.vms {
            if let (Some(vm), true) = (self.vms.get_mut(&state.vm_id), state.evidence.is_some()) {
                vm.evidence_sent = true;
            }
        }
        if self.frozen {
            return;
        }
        let before = self.vms.len();
        self.vms.retain(|id, _| answer.assignments.iter().any(|spec| spec.vm_id == *id));
        self.removed += (before - self.vms.len()) as u64;
        for vm in self.vms.values_mut() {
            let failing = self.failing.get(&vm.spec.name).cloned();
            vm.advance(failing);
        }
        for spec in answer.assignments {
            match self.vms.get_mut(&spec.vm_id) {
                Some(vm) => vm.take(spec),
                None => drop(self.vms.insert(spec.vm_id.clone(), SimVm::new(spec))),
            }
        }
        let consents = !self.keys_stay;
        self.vms.values_mut().for_each(|vm| vm.use_key(consents));
    }
}

impl SimVm {
    fn new(spec: VmSpec) -> Self {
        let phase = if spec.power == Power::On { VmPhase::Starting } else { VmPhase::Stopped };
        let (generation, restarts) = (spec.generation, spec.restarts);
        Self {
            spec,
            phase,
            restarts,
            launches: 0,
            generation,
            key_in_use: None,
            failure: None,
            evidence_sent: false,
        }
    }

    fn is_moving(&self) -> bool {
        let on_its_way = matches!(self.phase, VmPhase::Starting | VmPhase::Running | VmPhase::Stopping);
        on_its_way || (self.phase == VmPhase::Booted && !self.evidence_sent)
    }

    fn take(&mut self, spec: VmSpec) {
        let is_on = matches!(self.phase, VmPhase::Running | VmPhase::Booted | VmPhase::Starting);
        let news = spec.generation != self.generation;
        let restart = spec.restarts > self.restarts;
        self.generation = spec.generation;
        match spec.power {
            Power::Off if is_on => self.phase = VmPhase::Stopping,
            Power::Off if self.phase == VmPhase::Failed => self.phase = VmPhase::Stopped,
            Power::On if self.phase == VmPhase::Stopped || (self.phase == VmPhase::Failed && news) => {
                self.begin()
            }
            Power::On if is_on && restart => self.begin(),
            Power::On | Power::Off => {}
        }
        self.restarts = spec.restarts;
        self.spec = spec;
    }

    fn begin(&mut self) {
        self.phase = VmPhase::Starting;
        self.failure = None;
    }

    fn advance(&mut self, failing: Option<Failure>) {
        self.phase = match self.phase {
            VmPhase::Starting => match failing.or_else(|| binding_fault(&self.spec)) {
                Some(failure) => {
                    self.failure = Some(failure);
                    VmPhase::Failed
                }
                None => {
                    self.launches += 1;
                    self.evidence_sent = false;
                    VmPhase::Running
                }
            },
            VmPhase::Running => VmPhase::Booted,
            VmPhase::Stopping => VmPhase::Stopped,
            settled => settled,
        };
    }

    fn state(&self) -> VmState {
        let up = matches!(self.phase, VmPhase::Running | VmPhase::Booted);
        let evidence = (self.phase == VmPhase::Booted && !self.evidence_sent).then(|| evidence(self));
        VmState {
            vm_id: self.spec.vm_id.clone(),
            generation: self.generation,
            restarts: self.restarts,
            phase: self.phase,
            detail: format!("simulated: {:?}", self.phase),
            failure: self.failure.clone().filter(|_| self.phase == VmPhase::Failed),
            ssh_port: up.then_some(2222),
            evidence,
            timings: if up { [("launch".to_owned(), 1)].into() } else { BTreeMap::new() },
            key: self.key(),
        }
    }
}

impl SimVm {
    /// A VM that runs moves at once to the key of its newest launch document, unless its owner does not let it.
    fn use_key(&mut self, consents: bool) {
        let document: Option<LaunchDocument> = serde_json::from_str(&self.spec.launch_document).ok();
        if matches!(self.phase, VmPhase::Running | VmPhase::Booted) && (consents || self.key_in_use.is_none())
        {
            self.key_in_use = document.map(|document| document.key_id);
        }
    }

    fn key(&self) -> Option<KeyState> {
        let in_use = self.key_in_use.clone()?;
        Some(KeyState { in_use, not_changed: None, revoked: None })
    }
}

/// What a host must find right before it launches anything.
fn binding_fault(spec: &VmSpec) -> Option<Failure> {
    let fault = |claim: &str, expected: String, actual: String| Failure {
        code: "BindingBroken".to_owned(),
        claim: claim.to_owned(),
        expected,
        actual,
        rule: "the launch document binds what travels with it".to_owned(),
        remedy: "the control plane is wrong".to_owned(),
        transient: false,
    };
    let document: LaunchDocument = match serde_json::from_str(&spec.launch_document) {
        Ok(document) => document,
        Err(error) => {
            return Some(fault("launch document", "a launch document".to_owned(), error.to_string()));
        }
    };
    [
        ("provisioningDigest", document.provisioning_digest, sha256_hex(spec.provisioning_data.as_bytes())),
        ("trustBundleDigest", document.trust_bundle_digest, sha256_hex(spec.trust_bundle.as_bytes())),
        ("vmId", document.vm_id, spec.vm_id.clone()),
        ("imageDigest", document.image_digest, spec.image_digest.clone()),
    ]
    .into_iter()
    .find(|(_, expected, actual)| expected != actual)
    .map(|(claim, expected, actual)| fault(claim, expected, actual))
}

/// A bundle of the right shape; the report is zeros and the token is signed by nobody.
fn evidence(vm: &SimVm) -> String {
    let claims = format!(r#"{{"{CLAIM_TRUST_ROOT}":"development","launch":{}}}"#, vm.launches);
    let token = format!("{}.{}.", to_base64url(br#"{"alg":"none"}"#), to_base64url(claims.as_bytes()));
    let bundle = EvidenceBundle {
        version: 1,
        snp_report: vec![0; 1184],
        certificate_chain: String::new(),
        runtime_data: b"{}".to_vec(),
        init_time_data: vm.spec.launch_document.clone().into_bytes(),
        token,
    };
    serde_json::to_string(&bundle).expect("the type has only string keys")
}
