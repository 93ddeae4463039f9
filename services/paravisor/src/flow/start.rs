//! A start from the first check to the guest's first instruction, and what is done with the running VM.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use internal_api::paravisor::{ParavisorConfig, Step};
use jiff::Timestamp;
use sealed_disk::guest_state::LockedState;

use super::ak_certificate::AkCertificate;
use super::attest::{Attestor, PendingTransferKey, TransferKey};
use super::keeper::{Keeper, open_file};
use super::launch::Launch;
use super::owner::{GuestReports, Owner, lock};
use super::provision;
use super::record::VolumeRecord;
use super::recovery_document;
use super::reopen;
use super::world::{Observer, SecureProcessor, Services, TpmFactory, reach, step};
use crate::disk::BlockDevice;
use crate::disk::config_drive::ConfigDrive;
use crate::disk::os_disk::OsDisk;
use crate::disk::plain_disk::PlainDisk;
use crate::failure::{Stop, chain};
use crate::tpm::engine::TpmEngine;
use crate::tpm::front::Front;
use crate::tpm::identity::{TpmError, allocate_banks};
use crate::tpm::report::VmConfiguration;

/// Makes the clients of the services that a launch document names.
pub type Connect = Box<dyn Fn(&Launch) -> Result<Arc<dyn Services>, Stop>>;
/// Makes a VM's devices reachable.
pub type Listen = Box<dyn FnOnce(&Running) -> Result<(), Stop>>;

/// What a start is made of.
pub struct World {
    /// Files of the VM.
    pub config: ParavisorConfig,
    /// Reports.
    pub processor: Arc<dyn SecureProcessor>,
    /// Tokens and keys; made when the launch document was checked.
    pub services: Connect,
    /// The vTPM's implementation.
    pub tpms: Box<dyn TpmFactory>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// The time.
    pub now: Timestamp,
    /// Makes the devices reachable, when everything is ready and before anybody is told so.
    pub listen: Listen,
}

/// A VM that may run: its devices, and what the host may ask.
pub struct Running {
    front: Arc<Mutex<Front>>,
    keeper: Arc<Mutex<Keeper>>,
    attestor: Attestor,
    observer: Arc<dyn Observer>,
    disk: Arc<dyn BlockDevice>,
    config_drive: Arc<dyn BlockDevice>,
    now: Timestamp,
}

/// Does everything that comes before the guest's first instruction. The last event is `Ready`.
pub fn start(world: World) -> Result<Running, Stop> {
    let transfer = TransferKey::begin()?;
    let (attestor, config_drive) =
        step(world.observer.as_ref(), Step::CheckLaunch, || check(&world, transfer))?;
    let (keeper, first) = keep(&world, &attestor)?;
    let generation = keeper.generation();
    let expected = keeper.record.volume.as_ref().map(VolumeRecord::measurement);
    let (config, observer) = (&world.config, Arc::clone(&world.observer));
    let told = observer.as_ref();
    let layout = attestor.launch.manifest.disk_layout(config.disk_bytes);
    let layout = layout.map_err(|error| provision::size_refused(&error))?;
    let engine = engine(world.tpms.as_ref(), &keeper, first)?;
    let keeper = Arc::new(Mutex::new(keeper));
    let mut front = front(&world, &attestor, &keeper, layout.header_start, engine, expected);
    if first {
        step(told, Step::ProvisionTpm, || front.prepare_keys())?;
        step(told, Step::EncryptDisk, || {
            provision::make_disk(&attestor.launch, config, &mut lock(&keeper), told)
        })?;
    } else {
        front.prepare_keys()?;
    }
    step(told, Step::Seal, || front.seal())?;
    let file = open_file(&config.disk)?;
    recovery_document::claim_disk(&file)?;
    let disk: Arc<dyn BlockDevice> = match expected {
        Some(_) => Arc::new(OsDisk::new(layout, file, Arc::clone(&keeper), Arc::clone(&observer))),
        None => Arc::new(PlainDisk::new(file, config.disk_bytes)),
    };
    let attested = step(told, Step::AdvanceGeneration, || {
        let mut keeper = lock(&keeper);
        if let Some(fingerprint) = recovery_document::fingerprint_of(&keeper.record, attestor.launch.vm_id) {
            attestor.recovery.get_or_init(|| fingerprint);
        }
        keeper.write_generation(generation + 1)?;
        reach("after writing a start's generation");
        attestor.advance(generation + 1, keeper.sealed.as_ref())
    })?;
    let front = Arc::new(Mutex::new(front));
    let (observer, now) = (Arc::clone(&observer), world.now);
    let running = Running { front, keeper, attestor, observer, disk, config_drive, now };
    (world.listen)(&running)?;
    reach("before saying ready");
    told.event(attested.ready());
    Ok(running)
}

/// The launch document and all that it binds, against HOST_DATA.
fn check(world: &World, transfer: PendingTransferKey) -> Result<(Attestor, Arc<ConfigDrive>), Stop> {
    let launch = Arc::new(Launch::read(&world.config)?);
    launch.check_report(&world.processor.extended_report([0; 64])?.report)?;
    let drive = config_drive(&launch)?;
    let attestor = Attestor {
        configuration: configuration(&launch, &drive),
        services: (world.services)(&launch)?,
        processor: Arc::clone(&world.processor),
        transfer: transfer.wait()?,
        recovery: OnceLock::new(),
        launch,
    };
    Ok((attestor, Arc::new(drive)))
}

/// What an earlier start left, or the beginning of a VM; and whether this is its first start.
fn keep(world: &World, attestor: &Attestor) -> Result<(Keeper, bool), Stop> {
    let (launch, config, told) = (attestor.launch.as_ref(), &world.config, world.observer.as_ref());
    let found = reopen::find(launch, config)?;
    let kek = attestor.key(told, found.as_ref().map_or(0, LockedState::generation))?;
    match found {
        None => Ok((provision::begin(launch, config, kek)?, true)),
        Some(locked) => {
            let keeper = step(told, Step::OpenState, || reopen::open(launch, config, locked, &kek, told))?;
            Ok((keeper, false))
        }
    }
}

fn front(
    world: &World,
    attestor: &Attestor,
    keeper: &Arc<Mutex<Keeper>>,
    header_start: u64,
    engine: Box<dyn TpmEngine>,
    expected: Option<[u8; 32]>,
) -> Front {
    let owner = Owner {
        keeper: Arc::clone(keeper),
        observer: Arc::clone(&world.observer),
        vars: world.config.vars.clone(),
        header_start,
        vm_id: attestor.launch.document.vm_id.clone(),
        now: world.now,
    };
    let reports = Box::new(GuestReports(Arc::clone(&world.processor)));
    Front::new(engine, Box::new(owner), reports, attestor.configuration.clone(), expected)
}

fn engine(tpms: &dyn TpmFactory, keeper: &Keeper, first: bool) -> Result<Box<dyn TpmEngine>, Stop> {
    let mut engine = tpms.tpm((!first).then(|| keeper.tpm())).map_err(TpmError::from)?;
    if first {
        allocate_banks(engine.as_mut())?;
    }
    Ok(engine)
}

fn config_drive(launch: &Launch) -> Result<ConfigDrive, Stop> {
    let drive = ConfigDrive::new(&launch.document.vm_id, &launch.provisioning);
    drive.map_err(|error| super::launch::malformed("provisioning data", &chain(&error)))
}

fn configuration(launch: &Launch, drive: &ConfigDrive) -> VmConfiguration {
    VmConfiguration {
        config_drive: drive.digest(),
        console_enabled: true,
        secure_boot: launch.document.secure_boot,
        tpm_enabled: true,
        tpm_persisted: true,
        vm_unique_id: launch.document.vm_id.clone(),
    }
}

impl Running {
    /// The TPM.
    pub fn tpm(&self) -> Arc<Mutex<Front>> {
        Arc::clone(&self.front)
    }

    /// The OS disk.
    pub fn disk(&self) -> Arc<dyn BlockDevice> {
        Arc::clone(&self.disk)
    }

    /// The drive with the tenant's provisioning data.
    pub fn config_drive(&self) -> Arc<dyn BlockDevice> {
        Arc::clone(&self.config_drive)
    }

    /// The renewal of the attestation key's certificate, to be carried out while the guest boots.
    pub fn ak_certificate(&self) -> AkCertificate {
        AkCertificate {
            front: Arc::clone(&self.front),
            keeper: Arc::clone(&self.keeper),
            processor: Arc::clone(&self.attestor.processor),
            services: Arc::clone(&self.attestor.services),
            configuration: self.attestor.configuration.clone(),
            now: self.now,
        }
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest was reset: seals for the boot to come.
    pub fn reset(&self) -> Result<(), Stop> {
        self.front().seal()
    }

    /// Tells the observer new evidence for the boot chain that is sealed to now.
    pub fn renew_evidence(&self) -> Result<(), Stop> {
        let (generation, sealed) = {
            let keeper = lock(&self.keeper);
            (keeper.generation(), keeper.sealed.clone())
        };
        if let Some(sealed) = sealed {
            self.observer.event(self.attestor.renew_evidence(generation, &sealed)?);
        }
        Ok(())
    }

    /// The guest has stopped: writes everything as a new generation and tells the key service, so that no older state can
    /// come back. Returns the generation.
    ///
    /// If only the key service does not hear of it, the stop is clean all the same: the next start presents the new
    /// generation, which the key service takes.
    pub fn stop(&self) -> Result<u64, Stop> {
        let state = {
            let mut front = self.front();
            crate::tpm::server::TpmDevice::power_off(&mut *front);
            front.state()
        };
        self.disk.flush().map_err(|error| Stop::io("flushing the OS disk", &error))?;
        let mut keeper = lock(&self.keeper);
        keeper.keep_tpm(state)?;
        let generation = keeper.generation() + 1;
        reach("before writing a stop's generation");
        keeper.write_generation(generation)?;
        reach("after writing a stop's generation");
        if let Err(stop) = self.attestor.advance(generation, keeper.sealed.as_ref()) {
            let failure = stop.failure();
            tracing::warn!(
                code = failure.code,
                what = failure.actual,
                "the key service did not hear of the stop"
            );
        }
        reach("after telling of a stop");
        Ok(generation)
    }
}
