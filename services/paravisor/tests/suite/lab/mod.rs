//! A VM's surroundings for the flow's tests: a small image, a real software secure processor, and a double of the two
//! services that keeps their protocol (nonce, binding of evidence, generations, wrapping).

pub mod disk;
pub mod guest;
pub mod image;
pub use devkit::guest::initramfs;
pub mod processor;
pub mod services;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use internal_api::launch::{LaunchDocument, ProvisioningData, SecurityEncryption, sha256_hex};
use internal_api::paravisor::{Event, Failure, ParavisorConfig, Step};
use paravisor::failure::Stop;
use paravisor::flow::start::{Running, World, start};
use paravisor::flow::world::{Observer, TpmFactory};
use paravisor::tpm::engine::{EngineError, TpmEngine};
use paravisor::tpm::libtpms::LibTpms;
use zeroize::Zeroizing;

use self::processor::Context;
use self::services::FakeServices;

pub const VM: &str = "0A1B2C3D-0000-1111-2222-333344445555";
pub const OTHER_VM: &str = "FFFFFFFF-0000-1111-2222-333344445555";
/// Debian's firmware variables without keys, and with Microsoft's.
pub const VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
pub const VARS_WITH_KEYS: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

/// One VM: its files, its launch, and what was told.
pub struct Lab {
    pub folder: tempfile::TempDir,
    pub config: ParavisorConfig,
    pub document: LaunchDocument,
    pub context: Arc<Context>,
    pub services: Arc<FakeServices>,
    pub told: Arc<Told>,
}

/// What the observer was told. A crash may be asked for at an event.
#[derive(Default)]
pub struct Told {
    pub events: Mutex<Vec<Event>>,
    pub refused: Mutex<Vec<Failure>>,
    pub changes: Mutex<u32>,
    pub crash_at: Mutex<Option<Event>>,
}

impl Observer for Told {
    fn event(&self, event: Event) {
        let same = |asked: &Event| match (asked, &event) {
            (Event::Step { step: a }, Event::Step { step: b }) => a == b,
            (Event::StepDone { step: a, .. }, Event::StepDone { step: b, .. }) => a == b,
            (Event::Progress { .. }, Event::Progress { .. }) => true,
            _ => false,
        };
        let crash = self.crash_at.lock().unwrap().as_ref().is_some_and(same);
        self.events.lock().unwrap().push(event);
        assert!(!crash, "the crash that was asked for");
    }
    fn refused(&self, failure: Failure) {
        self.refused.lock().unwrap().push(failure);
    }
    fn boot_chain_changed(&self) {
        *self.changes.lock().unwrap() += 1;
    }
}

impl Told {
    pub fn steps(&self) -> Vec<Step> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|e| if let Event::StepDone { step, .. } = e { Some(*step) } else { None })
            .collect()
    }

    pub fn tampering(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let what = |event: &Event| match event {
            Event::TamperingSeen { what } => Some(what.clone()),
            _ => None,
        };
        events.iter().filter_map(what).collect()
    }
}

struct Tpms;

impl TpmFactory for Tpms {
    fn tpm(&self, state: Option<Zeroizing<Vec<u8>>>) -> Result<Box<dyn TpmEngine>, EngineError> {
        Ok(Box::new(LibTpms::new(state)?))
    }
}

impl Lab {
    pub fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// A VM whose documents are changed before they are bound by the launch.
    pub fn with(change: impl FnOnce(&mut LaunchDocument, &mut ProvisioningData)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let image = image::image();
        let mut provisioning = ProvisioningData {
            version: 1,
            computer_name: "web-1".to_owned(),
            admin_username: "azureuser".to_owned(),
            ssh_public_keys: vec!["ssh-ed25519 AAAAtenant".to_owned()],
            custom_data: None,
        };
        let mut document = LaunchDocument {
            version: 1,
            vm_id: VM.to_owned(),
            resource_id: "/subscriptions/x/resourceGroups/y/providers/Microsoft.Compute/virtualMachines/z"
                .to_owned(),
            image_digest: sha256_hex(&image.manifest),
            provisioning_digest: String::new(),
            security_encryption: SecurityEncryption::DiskWithVMGuestState,
            secure_boot: false,
            key_id: services::KEY_ID.to_owned(),
            first_key_id: None,
            key_check: None,
            attestation_url: "https://attestation.example".to_owned(),
            trust_bundle_digest: sha256_hex(b"PEM"),
            recovery_key: None,
        };
        change(&mut document, &mut provisioning);
        let provisioning = serde_json::to_vec(&provisioning).unwrap();
        document.provisioning_digest = sha256_hex(&provisioning);
        let config = ParavisorConfig {
            image: image.path.clone(),
            image_manifest: file("manifest.json"),
            disk: file("disk.img"),
            disk_bytes: image::DISK_BYTES,
            guest_state: file("guest-state.vmgs"),
            boot_region: file("boot-region.img"),
            vars: file("vars.fd"),
            vars_template: VARS.into(),
            launch_document: file("launch.json"),
            provisioning_data: file("provisioning.json"),
            trust_bundle: file("trust.pem"),
            release_token: file("release-token"),
            secure_processor: file("unused"),
            tpm_socket: file("unused"),
            disk_socket: file("unused"),
            config_drive_socket: file("unused"),
            control_socket: file("unused"),
            guest_port_socket: None,
        };
        write(&config.image_manifest, &image.manifest);
        write(&config.provisioning_data, &provisioning);
        write(&config.trust_bundle, b"PEM");
        let bytes = serde_json::to_vec(&document).unwrap();
        write(&config.launch_document, &bytes);
        let context = Arc::new(Context::launch(&bytes));
        let (services, told) = (Arc::default(), Arc::default());
        Self { folder, config, document, context, services, told }
    }

    /// Launches the same VM with another launch document, as a host can at any time.
    pub fn relaunch(&mut self, change: impl FnOnce(&mut LaunchDocument)) {
        change(&mut self.document);
        let bytes = serde_json::to_vec(&self.document).unwrap();
        write(&self.config.launch_document, &bytes);
        self.context = Arc::new(Context::launch(&bytes));
    }

    /// The key that the guest state says it is under, and its generation.
    pub fn state_key(&self) -> (String, u64) {
        let file = std::fs::File::open(&self.config.guest_state).unwrap();
        let locked = sealed_disk::guest_state::LockedState::open(file, VM.parse().unwrap()).unwrap();
        (locked.key_id().unwrap().to_owned(), locked.generation())
    }

    /// Starts the VM as it stands.
    pub fn start(&self) -> Result<Running, Stop> {
        let services = Arc::clone(&self.services);
        start(World {
            config: self.config.clone(),
            processor: Arc::<Context>::clone(&self.context),
            services: Box::new(move |_| Ok(Arc::<FakeServices>::clone(&services))),
            tpms: Box::new(Tpms),
            observer: Arc::<Told>::clone(&self.told),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            listen: Box::new(|_| Ok(())),
        })
    }

    /// Starts, and must be refused with this code.
    pub fn refused(&self, code: &str) -> Failure {
        let failure = self.start().err().unwrap_or_else(|| panic!("must be refused with {code}"));
        assert_eq!(failure.failure().code, code, "{:?}", failure.failure());
        failure.into()
    }

    /// Starts and stops cleanly; the generation written.
    pub fn run_once(&self) -> u64 {
        self.start().unwrap().stop().unwrap()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of the three files that belong together.
    pub fn keep_copy(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = [&self.config.guest_state, &self.config.boot_region, &self.config.disk];
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).to_vec()
    }
}

pub fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

pub fn put_back(copy: &[(PathBuf, Vec<u8>)]) {
    for (path, bytes) in copy {
        write(path, bytes);
    }
}

/// Changes bytes of a file in place.
pub fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    write(path, &bytes);
}

/// Adds a variable to a store, as the firmware (or the host) writes it.
pub fn set_variable(vars: &Path, vendor: &str, name: &str, data: &[u8]) {
    edit(vars, |flash| {
        let mut at = usize::from(u16::from_le_bytes(flash[48..50].try_into().unwrap())) + 28;
        let size =
            |flash: &[u8], at: usize| u32::from_le_bytes(flash[at..at + 4].try_into().unwrap()) as usize;
        while flash[at..at + 2] == [0xaa, 0x55] {
            at += (60 + size(flash, at + 36) + size(flash, at + 40)).next_multiple_of(4);
        }
        let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let mut variable = vec![0xaa, 0x55, 0x3f, 0, 7, 0, 0, 0];
        variable.resize(36, 0);
        variable.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
        variable.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        variable.extend(uuid::Uuid::parse_str(vendor).unwrap().to_bytes_le());
        variable.extend(name);
        variable.extend(data);
        flash[at..at + variable.len()].copy_from_slice(&variable);
    });
}
