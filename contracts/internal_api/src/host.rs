//! The host interface: a host agent asks for its assignments and reports what it sees.
//!
//! `POST /internal/hosts/{name}/sync` over mutual TLS, a long poll: the agent sends what it observes, the control plane
//! answers at once when something changed since `known_revision`, else after at most `wait_seconds`. The answer is the
//! whole list of assignments, so a lost answer costs nothing.

use serde::{Deserialize, Serialize};

use crate::paravisor::Failure;

/// Body of a sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SyncRequest {
    /// What the host has; changes rarely.
    pub capacity: HostCapacity,
    /// Every VM that the host knows.
    pub vms: Vec<VmState>,
    /// `revision` of the last answer that the agent acted on; 0 at start.
    pub known_revision: u64,
    /// How long the control plane may wait for news; 0 answers at once.
    pub wait_seconds: u32,
}

/// Answer of a sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SyncResponse {
    /// Grows with every change to the host's assignments.
    pub revision: u64,
    /// Every VM that the host shall have. One that is missing here shall be removed with its disks.
    pub assignments: Vec<VmSpec>,
}

/// What a host offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostCapacity {
    /// Region name, for example `local`.
    pub region: String,
    /// `sevSnp` or `development`.
    pub platform: Platform,
    /// `kvm` or `tcg`.
    pub accelerator: Accelerator,
    /// Virtual cores that may be given out.
    pub vcpus: u32,
    /// Memory that may be given out.
    pub memory_mib: u64,
    /// The secure processor's chip; nothing while it was not seen. What the host says, not what is proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chip: Option<HostChip>,
}

/// A secure processor, as its certificate at the key distribution service is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostChip {
    /// Milan, Genoa or Turin.
    pub product: String,
    /// Hex; as many bytes as the product has.
    pub chip_id: String,
    /// The reported TCB as 16 hex digits, most significant first.
    pub tcb: String,
}

/// The secure processor behind the host's reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Platform {
    /// AMD SEV-SNP.
    SevSnp,
    /// The software secure processor: no isolation from the operator.
    Development,
}

/// How guest code is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Accelerator {
    /// Hardware virtualisation that was seen to run firmware.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// What shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VmSpec {
    /// Upper-case GUID.
    pub vm_id: String,
    /// Name for people; also the serial log's.
    pub name: String,
    /// Generation of the wanted state; what the host reports back as reached.
    pub generation: u64,
    /// Wanted power.
    pub power: Power,
    /// Grows by one with each restart that was asked for.
    pub restarts: u64,
    /// Virtual CPUs as measured.
    pub vcpus: u32,
    /// Memory as the guest sees it.
    pub memory_mib: u64,
    /// SHA-256 (hex) of the image's manifest; the host fetches image and manifest by it.
    pub image_digest: String,
    /// Size of the OS disk to make; at least the image's.
    pub disk_bytes: u64,
    /// The launch document, byte for byte (JSON text).
    pub launch_document: String,
    /// The provisioning data, byte for byte (JSON text). Not secret from the host, only bound.
    pub provisioning_data: String,
    /// PEM bundle under which the attestation and key services verify.
    pub trust_bundle: String,
    /// Bearer token that may only call `release`.
    pub release_token: String,
}

/// Wanted power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Power {
    /// Running.
    On,
    /// Stopped; disks and state kept. (`powerOff` and `deallocate` differ for the control plane only.)
    Off,
}

/// What is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VmState {
    /// Upper-case GUID.
    pub vm_id: String,
    /// Generation of the spec that this state fulfils, or failed to fulfil.
    pub generation: u64,
    /// Restarts carried out.
    pub restarts: u64,
    /// Where the VM stands.
    pub phase: VmPhase,
    /// For people: what is being done now, for example `encrypting the OS disk, 42 %`.
    pub detail: String,
    /// Why [`VmPhase::Failed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Loopback port that forwards to the guest's SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_port: Option<u16>,
    /// JSON text of the newest `public_api::attestation::EvidenceBundle`, when it changed since the last sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Milliseconds by step of the last start: `fetchImage`, `launch`, `attest`, `release`, `provision`, `qemu`.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub timings: std::collections::BTreeMap<String, u64>,
    /// The key of its guest state, once the VM has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyState>,
}

/// What a VM says about its key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyState {
    /// URL of the key that its guest state is under.
    pub in_use: String,
    /// Why the key that the launch document names is not in use, after it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_changed: Option<Failure>,
    /// Why the VM may no longer have its key: it will be stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Failure>,
}

/// Where a VM stands on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VmPhase {
    /// Getting ready: image, launch, keys, disk.
    Starting,
    /// The guest's first instruction has run.
    Running,
    /// The guest was seen to open its volume with the right key (PCR 15).
    Booted,
    /// Being stopped.
    Stopping,
    /// Stopped, state kept.
    Stopped,
    /// Will not come up by itself; `failure` says why.
    Failed,
}
