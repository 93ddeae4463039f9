//! A start from the first check to the guest's first instruction, and what is done with the running VM.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use internal_api::launch::KeyCheck;
use internal_api::paravisor::{Event, Failure, ParavisorConfig, Step};
use jiff::Timestamp;

use super::ak_certificate::AkCertificate;
use super::attest::{Attestor, PendingTransferKey, TransferKey, Written};
use super::keeper::{Keeper, open_file};
use super::key_check::Answer;
use super::launch::Launch;
use super::owner::{GuestReports, Owner, lock};
use super::record::VolumeRecord;
use super::release::Wanted;
use super::world::{Observer, SecureProcessor, Services, TpmFactory, reach, step};
use super::{change_key, provision, recovery_document, reopen};
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
    /// Held by whoever changes generation or key.
    turn: Mutex<Turn>,
}

/// What a change of generation must know of the one before.
#[derive(Default)]
struct Turn {
    /// The key service has not heard of the generation last written: there may be no further one before it has.
    untold: bool,
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
    let (attested, key_id) = step(told, Step::AdvanceGeneration, || {
        let mut keeper = lock(&keeper);
        if let Some(fingerprint) = recovery_document::fingerprint_of(&keeper.record, attestor.launch.vm_id) {
            attestor.recovery.get_or_init(|| fingerprint);
        }
        keeper.write_generation(generation + 1)?;
        reach("after writing a start's generation");
        let written = keeper.written(&attestor.launch);
        Ok((attestor.advance(&written)?, written.key_id))
    })?;
    let front = Arc::new(Mutex::new(front));
    let (observer, now) = (Arc::clone(&observer), world.now);
    let turn = Mutex::default();
    let running = Running { front, keeper, attestor, observer, disk, config_drive, now, turn };
    (world.listen)(&running)?;
    reach("before saying ready");
    told.event(Event::KeyInUse { key_id });
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
    let wanted = |key_id| Wanted { key_id, successor: None };
    let Some(locked) = reopen::find(launch, config)? else {
        let kek = attestor.key(told, wanted(&launch.document.key_id), 0)?.kek;
        return Ok((provision::begin(launch, config, kek)?, true));
    };
    if change_key::key_of(&locked, launch) != launch.document.key_id {
        return Ok((change_key::at_start(attestor, config, locked, told)?, false));
    }
    let kek = attestor.key(told, wanted(&launch.document.key_id), locked.generation())?.kek;
    let keeper = step(told, Step::OpenState, || reopen::open(launch, config, locked, &kek, told))?;
    Ok((keeper, false))
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

    /// Moves the guest state to another key while the guest runs, if the present key names it. What came of it is told; the
    /// guest does not notice.
    pub fn change_key(&self, key_id: &str) -> Result<(), Stop> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.change_key_in_turn(key_id, &mut turn);
        if let Err(stop) = &done {
            let failure = stop.failure().clone();
            self.observer.event(Event::KeyNotChanged { key_id: key_id.to_owned(), failure });
        }
        done
    }

    fn change_key_in_turn(&self, key_id: &str, turn: &mut Turn) -> Result<(), Stop> {
        let told = self.observer.as_ref();
        let before = self.written();
        if before.key_id == key_id {
            told.event(Event::KeyInUse { key_id: before.key_id });
            return Ok(());
        }
        self.tell(turn)?;
        let next = step(told, Step::ChangeKey, || change_key::next(&self.attestor, &before, key_id))?;
        step(told, Step::AdvanceGeneration, || {
            change_key::write(&mut lock(&self.keeper), &next, before.generation + 1)?;
            turn.untold = true;
            reach("after writing a generation under another key");
            Ok(())
        })?;
        told.event(Event::KeyInUse { key_id: key_id.to_owned() });
        if let Err(stop) = self.tell(turn) {
            tracing::warn!(
                code = stop.failure().code,
                "the key service did not hear of the change of the key yet"
            );
        }
        Ok(())
    }

    /// Tells the key service of the generation last written, if it has not heard of it.
    fn tell(&self, turn: &mut Turn) -> Result<(), Stop> {
        if turn.untold {
            let attested = self.attestor.advance(&self.written())?;
            turn.untold = false;
            self.observer.event(attested.evidence());
        }
        Ok(())
    }

    fn written(&self) -> Written {
        lock(&self.keeper).written(&self.attestor.launch)
    }

    /// Asks the key service whether the VM may still have its key.
    pub fn check_key(&self) -> Answer {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = Answer::of(self.attestor.advance(&self.written()));
        turn.untold &= !matches!(answer, Answer::Granted);
        answer
    }

    /// How often that is to be asked.
    pub fn key_check(&self) -> KeyCheck {
        self.attestor.launch.document.key_check.unwrap_or_default()
    }

    /// The key was revoked: keeps what the guest has written, and lets the VM run no further.
    pub fn revoke(&self, failure: Failure) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.power_off().and_then(|()| lock(&self.keeper).commit());
        if let Err(stop) = kept {
            tracing::error!(
                code = stop.failure().code,
                "not everything was kept of a VM whose key was revoked"
            );
        }
        reach("before saying that the key was revoked");
        self.observer.refused(failure);
    }

    /// Takes the TPM's power away, and keeps its state and what the guest has written.
    fn power_off(&self) -> Result<(), Stop> {
        let state = {
            let mut front = self.front();
            crate::tpm::server::TpmDevice::power_off(&mut *front);
            front.state()
        };
        self.disk.flush().map_err(|error| Stop::io("flushing the OS disk", &error))?;
        lock(&self.keeper).keep_tpm(state)
    }

    /// The guest has stopped: writes everything as a new generation and tells the key service, so that no older state can
    /// come back. Returns the generation.
    ///
    /// If only the key service does not hear of it, the stop is clean all the same: the next start presents the new
    /// generation, which the key service takes. If it has not even heard of the generation before, everything stays in
    /// that one: two steps at once it would not take.
    pub fn stop(&self) -> Result<u64, Stop> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.power_off()?;
        let heard = self.tell(&mut turn);
        let generation = lock(&self.keeper).generation() + u64::from(heard.is_ok());
        reach("before writing a stop's generation");
        let told = match heard {
            Ok(()) => {
                lock(&self.keeper).write_generation(generation)?;
                reach("after writing a stop's generation");
                self.attestor.advance(&self.written()).map(drop)
            }
            silent => silent,
        };
        if let Err(stop) = told {
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
