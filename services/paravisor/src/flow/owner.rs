//! The flow as the TPM front sees it: who keeps its state, seals for its boots, and is told what it saw.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use internal_api::paravisor::Event;
use jiff::Timestamp;
use vtpm::key::RsaPublic;
use vtpm::predict::Prediction;
use zeroize::Zeroizing;

use super::keeper::Keeper;
use super::record::AkRecord;
use super::world::{Observer, SecureProcessor, reach};
use super::{launch, seal, vars};
use crate::failure::Stop;
use crate::tpm::certificate;
use crate::tpm::front::TpmOwner;
use crate::tpm::identity::{TpmError, TpmIdentity};
use crate::tpm::report::ReportSource;

/// Locks the keeper, whatever happened to a thread that held it.
pub fn lock(keeper: &Mutex<Keeper>) -> MutexGuard<'_, Keeper> {
    keeper.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The TPM's owner.
pub struct Owner {
    /// What is kept.
    pub keeper: Arc<Mutex<Keeper>>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// The firmware's variables on the host.
    pub vars: PathBuf,
    /// Where the LUKS2 header begins.
    pub header_start: u64,
    /// The VM, for the attestation key's certificate.
    pub vm_id: String,
    /// When this start began.
    pub now: Timestamp,
}

impl TpmOwner for Owner {
    fn before_boot(&mut self, identity: &TpmIdentity) -> Result<Option<Prediction>, Stop> {
        reach("before a boot");
        let bytes = launch::read(&self.vars)?;
        let mut keeper = lock(&self.keeper);
        let basis = vtpm::pcr::sha256(&[&bytes, identity.srk.name.as_slice()].concat());
        if keeper.is_sealed_for(basis) {
            return Ok(keeper.sealed.clone());
        }
        let store = vars::parse("firmware variables", &bytes)?;
        let before = keeper.sealed.clone();
        let prediction = seal::seal(&mut keeper, self.header_start, &store, &identity.srk)?;
        keeper.commit()?;
        keeper.sealed_for(basis);
        drop(keeper);
        if before.is_some() && before != prediction {
            self.observer.boot_chain_changed();
        }
        Ok(prediction)
    }

    fn certificate(&self, ak: &RsaPublic) -> Result<Vec<u8>, TpmError> {
        let mut keeper = lock(&self.keeper);
        if keeper.record.ak.is(ak) {
            return Ok(keeper.record.ak.certificate.clone());
        }
        if keeper.record.ak != AkRecord::default() {
            return Err(TpmError::KeyKind("the attestation key is not the one that was certified"));
        }
        let made = certificate::certify(&self.vm_id, ak, self.now)?;
        keeper.record.ak = AkRecord::new(ak, made.clone());
        keeper.record_changed();
        Ok(made)
    }

    fn keep(&mut self, state: Zeroizing<Vec<u8>>) -> Result<(), Stop> {
        lock(&self.keeper).keep_tpm(state)
    }

    fn volume_opened(&mut self) {
        if let Err(stop) = seal::approve_version(&mut lock(&self.keeper)) {
            tracing::error!(code = stop.failure().code, "the booted version could not be recorded yet");
        }
        reach("before saying that the volume was opened");
        self.observer.event(Event::VolumeOpened);
    }

    fn refuse(&mut self, stop: Stop) {
        self.observer.refused(stop.into());
    }
}

/// The secure processor as the source of the guest's reports.
pub struct GuestReports(pub Arc<dyn SecureProcessor>);

impl ReportSource for GuestReports {
    fn report(&mut self, report_data: [u8; 64]) -> Result<Vec<u8>, Stop> {
        self.0.extended_report(report_data).map(|found| found.report)
    }
}
