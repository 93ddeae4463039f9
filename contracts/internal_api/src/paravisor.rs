//! Between the host agent and the paravisor process of a development host.
//!
//! The host agent writes a [`ParavisorConfig`] and starts the process; the paravisor writes one JSON [`Event`] a line to
//! standard output. Nothing here is secret and nothing here is trusted by the paravisor: what matters is bound by
//! HOST_DATA or checked by MAC.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Files and sockets of one VM, all absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParavisorConfig {
    /// The image, raw, read-only, plaintext of something public.
    pub image: PathBuf,
    /// Its manifest, whose SHA-256 the launch document names.
    pub image_manifest: PathBuf,
    /// The OS disk; made by the paravisor at the first start.
    pub disk: PathBuf,
    /// Size of the OS disk in bytes.
    pub disk_bytes: u64,
    /// The guest state (VMGS); made by the paravisor at the first start.
    pub guest_state: PathBuf,
    /// The encrypted boot region that belongs to the guest state.
    pub boot_region: PathBuf,
    /// The VM's firmware variables; a copy of `vars_template` at the first start, then kept.
    pub vars: PathBuf,
    /// The firmware variables as shipped, whose hash the launch page holds.
    pub vars_template: PathBuf,
    /// The launch document's bytes.
    pub launch_document: PathBuf,
    /// The provisioning data's bytes.
    pub provisioning_data: PathBuf,
    /// PEM bundle for the two services.
    pub trust_bundle: PathBuf,
    /// Bearer token for `release`; read anew before each use.
    pub release_token: PathBuf,
    /// Guest channel of the secure processor for this launch context.
    pub secure_processor: PathBuf,
    /// Listen here for QEMU's TPM emulator protocol (control channel).
    pub tpm_socket: PathBuf,
    /// Listen here for NBD clients of the OS disk.
    pub disk_socket: PathBuf,
    /// Listen here for NBD clients of the config drive (read-only, `cidata`).
    pub config_drive_socket: PathBuf,
    /// Listen here for [`ControlRequest`]s, one JSON line each, answered by one JSON line.
    pub control_socket: PathBuf,
    /// Listen here for QEMU's end of the guest's port to the secure processor. On development hosts only: elsewhere a guest
    /// reaches its processor by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_port_socket: Option<PathBuf>,
}

/// What the host may ask of a running paravisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ControlRequest {
    /// The guest has stopped: write everything down, advance the generation, exit with status 0.
    GuestStopped,
    /// The guest was reset (QEMU's RESET event): predict and seal for the next boot before it reads the disk.
    GuestReset,
    /// A fresh report of the secure processor over the given data, for the metadata service's clients.
    Status,
    /// Move the guest state to another key while the guest runs. The answer says only that it was heard; what came of it
    /// is told by [`Event::KeyInUse`] or [`Event::KeyNotChanged`]. The host is believed nothing: the old key must name
    /// the new one.
    #[serde(rename_all = "camelCase")]
    ChangeKey {
        /// URL of the new key with its version.
        key_id: String,
    },
}

/// Answer to a [`ControlRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ControlResponse {
    /// Done.
    Done,
    /// Refused or failed.
    Failed(Failure),
}

/// One line of the paravisor's standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event", deny_unknown_fields)]
pub enum Event {
    /// A step began.
    #[serde(rename_all = "camelCase")]
    Step {
        /// What is being done.
        step: Step,
    },
    /// A step ended.
    #[serde(rename_all = "camelCase")]
    StepDone {
        /// What was done.
        step: Step,
        /// How long it took.
        millis: u64,
    },
    /// How far a long step is.
    #[serde(rename_all = "camelCase")]
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// All sockets listen: QEMU may start.
    #[serde(rename_all = "camelCase")]
    Ready {
        /// Generation of the guest state that is now in use.
        generation: u64,
        /// JSON text of the `public_api::attestation::EvidenceBundle` of this start.
        evidence: String,
    },
    /// New evidence, for example after a reset with another boot chain.
    #[serde(rename_all = "camelCase")]
    Evidence {
        /// JSON text of the `public_api::attestation::EvidenceBundle`.
        evidence: String,
    },
    /// The guest state is durable under this key.
    #[serde(rename_all = "camelCase")]
    KeyInUse {
        /// URL of the key with its version.
        key_id: String,
    },
    /// The guest state stays under its key.
    #[serde(rename_all = "camelCase")]
    KeyNotChanged {
        /// The key that was asked for.
        key_id: String,
        /// Why it is not used.
        failure: Failure,
    },
    /// The key service was asked whether the VM may still have its key, and its answer is another one than before.
    #[serde(rename_all = "camelCase")]
    KeyCheck {
        /// Why not; nothing if it may.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// The guest measured the right volume key into PCR 15.
    VolumeOpened,
    /// The host changed something below the ciphertext; it had no effect.
    #[serde(rename_all = "camelCase")]
    TamperingSeen {
        /// What was seen.
        what: String,
    },
    /// The VM must not run (any more). The process exits with status 3 after this line.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// Why.
        failure: Failure,
    },
    /// Stopped cleanly at this generation. The process exits with status 0 after this line.
    #[serde(rename_all = "camelCase")]
    Stopped {
        /// Generation written last.
        generation: u64,
    },
}

/// The steps before the guest's first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Checking the launch document and what it binds.
    CheckLaunch,
    /// Report and token.
    Attest,
    /// The key service's answer.
    ReleaseKey,
    /// Opening the guest state of a former start.
    OpenState,
    /// Seeds and storage of a new vTPM.
    ProvisionTpm,
    /// The encrypted OS disk.
    EncryptDisk,
    /// PCRs of the boot to come, and the seal.
    Seal,
    /// The key that follows the one that the guest state is under: named by that one, and released.
    ChangeKey,
    /// Second release, at the new generation.
    AdvanceGeneration,
}

/// Why something failed: the five parts of a refusal, or a plain fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// Stable code, for example `RollbackRefused`, `DiskFull`.
    pub code: String,
    /// What was claimed or tried.
    pub claim: String,
    /// What would have been right.
    pub expected: String,
    /// What was found.
    pub actual: String,
    /// The rule that decided.
    pub rule: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether trying again without a change can help (a peer did not answer), or not (something is wrong).
    pub transient: bool,
}
