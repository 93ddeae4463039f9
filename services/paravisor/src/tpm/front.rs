//! What stands between the guest and its TPM.
//!
//! Commands pass through untouched. On their way the paravisor
//! - puts a fresh attestation report into NV index 0x01400001 when the guest starts to read it;
//! - learns the platform password that the firmware sets (without it the index could not be written any more);
//! - waits for the volume key's measurement in PCR 15: the first thing ever extended into it must be the right value, else
//!   a foreign volume was opened, and everything stops;
//! - compares what was measured with what the volume key is sealed to when the guest is about to ask for it, so that a boot
//!   that cannot unseal ends with the name of the event that differs instead of a dark screen.

use std::time::{Duration, Instant};

use vtpm::command::{self, Incoming, KeyPublic, ResponseCode, code, handle};
use vtpm::hcl::{MAX_REPORT, NV_INDEX_AK_CERTIFICATE, NV_INDEX_REPORT, NV_INDEX_USER_DATA};
use vtpm::predict::{Prediction, difference_of};
use zeroize::Zeroizing;

use super::engine::{BufferSizes, TpmEngine};
use super::identity::{self, Runner, TpmError, TpmIdentity};
use super::report::{ReportSource, VmConfiguration, hcl_report};
use super::server::TpmDevice;
use crate::failure::{Stop, foreign_volume, other_boot};

/// A younger report than this is not made anew (Azure's rule for its clients).
const RENEWAL: Duration = Duration::from_secs(2);
/// The PCR into which the opened volume's key is measured.
const VOLUME_PCR: u32 = 15;
/// Commands that extend a PCR with something that is not in the command (TPM 2.0 library, part 3).
const CODE_PCR_EVENT: u32 = 0x13c;
const CODE_EVENT_SEQUENCE_COMPLETE: u32 = 0x185;
/// The command with which an unsealing begins.
const CODE_POLICY_PCR: u32 = 0x17f;
/// More measurements than this belong to no boot; the rest is not remembered.
const MAX_EXTENDS: usize = 4096;

/// What happens around the TPM.
pub trait TpmOwner: Send {
    /// The guest is about to start (again): seal for the boot to come, and say which boot that is.
    fn before_boot(&mut self, identity: &TpmIdentity) -> Result<Option<Prediction>, Stop>;
    /// The certificate of the attestation key.
    fn certificate(&self, identity: &vtpm::key::RsaPublic) -> Result<Vec<u8>, TpmError>;
    /// The permanent state changed and shall be kept.
    fn keep(&mut self, state: Zeroizing<Vec<u8>>) -> Result<(), Stop>;
    /// The right volume key was measured.
    fn volume_opened(&mut self);
    /// The VM must not run any more.
    fn refuse(&mut self, stop: Stop);
}

/// The guest's view of the TPM.
pub struct Front {
    engine: Box<dyn TpmEngine>,
    owner: Box<dyn TpmOwner>,
    reports: Box<dyn ReportSource>,
    configuration: VmConfiguration,
    clock: fn() -> Instant,
    /// SHA-256 digest of the right volume key's measurement; `None` if the disk is not encrypted.
    expected: Option<[u8; 32]>,
    identity: Option<TpmIdentity>,
    sealed: Option<Prediction>,
    extends: Vec<(u8, [u8; 32])>,
    platform_password: Zeroizing<Vec<u8>>,
    opened: bool,
    renewed: Option<Instant>,
    kept: u64,
    refused: bool,
}

impl Front {
    /// A front over an engine without power.
    pub fn new(
        engine: Box<dyn TpmEngine>,
        owner: Box<dyn TpmOwner>,
        reports: Box<dyn ReportSource>,
        configuration: VmConfiguration,
        expected: Option<[u8; 32]>,
    ) -> Self {
        Self {
            engine,
            owner,
            reports,
            configuration,
            clock: Instant::now,
            expected,
            identity: None,
            sealed: None,
            extends: Vec::new(),
            platform_password: Zeroizing::default(),
            opened: false,
            renewed: None,
            kept: 0,
            refused: false,
        }
    }

    /// Another clock than the system's, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Instant) -> Self {
        self.clock = clock;
        self
    }

    /// Puts the platform's keys and indices in place; the TPM is off afterwards, its state with the owner.
    pub fn prepare_keys(&mut self) -> Result<(), Stop> {
        let prepared = self.prepare();
        self.engine.power_off();
        self.identity = Some(prepared?);
        self.keep_state()
    }

    /// Lets the owner seal for the boot to come. Needs [`Front::prepare_keys`] before.
    pub fn seal(&mut self) -> Result<(), Stop> {
        let identity = self.identity.clone().ok_or(TpmError::KeyKind("storage root key"))?;
        self.sealed = self.owner.before_boot(&identity)?;
        Ok(())
    }

    /// The attestation key, once the keys are prepared.
    pub fn attestation_key(&self) -> Option<KeyPublic> {
        self.identity.as_ref().map(|identity| identity.ak.clone())
    }

    /// Puts a new certificate of the attestation key where the guest reads it. Without power there is nothing to do: the
    /// next boot begins with what the owner has.
    pub fn replace_certificate(&mut self, certificate: &[u8]) -> Result<(), Stop> {
        if !self.engine.has_power() || self.refused {
            return Ok(());
        }
        let mut tpm = Runner(self.engine.as_mut());
        identity::replace_index(&mut tpm, &self.platform_password, NV_INDEX_AK_CERTIFICATE, certificate)?;
        self.keep_state()
    }

    /// The permanent state, for the owner's last write.
    pub fn state(&self) -> Zeroizing<Vec<u8>> {
        self.engine.state()
    }

    fn prepare(&mut self) -> Result<TpmIdentity, TpmError> {
        let owner = &self.owner;
        let identity = identity::prepare(self.engine.as_mut(), &|ak| owner.certificate(ak))?;
        self.platform_password = Zeroizing::default();
        self.renewed = None;
        self.renew(&identity)?;
        identity::finish(self.engine.as_mut())?;
        Ok(identity)
    }

    fn renew(&mut self, identity: &TpmIdentity) -> Result<(), TpmError> {
        let mut tpm = Runner(self.engine.as_mut());
        let user_data = identity::user_data(&mut tpm, NV_INDEX_USER_DATA)?;
        let ak = identity.ak_rsa()?;
        let mut report = hcl_report(self.reports.as_mut(), ak, &self.configuration, user_data)?;
        report.resize(MAX_REPORT, 0);
        identity::write_index(&mut tpm, &self.platform_password, NV_INDEX_REPORT, &report)
    }

    /// What must happen before the TPM sees a command. False if the VM must stop.
    fn watch(&mut self, command: &Incoming<'_>) -> bool {
        match command.nv_read() {
            Ok(Some(read)) if read.index == NV_INDEX_REPORT && read.offset == 0 => self.renew_if_old(),
            _ => {}
        }
        if self.opened {
            return true;
        }
        let volume = command.handles.first() == Some(&VOLUME_PCR);
        match command.code {
            code::PCR_EXTEND | CODE_PCR_EVENT | CODE_EVENT_SEQUENCE_COMPLETE if volume => {
                self.check_volume(command)
            }
            CODE_POLICY_PCR => self.check_boot(),
            _ => true,
        }
    }

    fn check_volume(&mut self, command: &Incoming<'_>) -> bool {
        let Some(expected) = self.expected else { return true };
        let found = command.pcr_extend().ok().flatten().and_then(|extend| extend.sha256);
        if found == Some(expected) {
            return true;
        }
        self.stop(foreign_volume(expected, found));
        false
    }

    /// Whether the volume key can be unsealed in the boot that was measured.
    fn check_boot(&mut self) -> bool {
        let differences =
            self.sealed.as_ref().map(|sealed| difference_of(sealed, &self.extends)).unwrap_or_default();
        if differences.is_empty() {
            return true;
        }
        self.stop(other_boot(&differences));
        false
    }

    fn stop(&mut self, stop: Stop) {
        self.refused = true;
        self.engine.power_off();
        self.owner.refuse(stop);
    }

    fn renew_if_old(&mut self) {
        let now = (self.clock)();
        if self.renewed.is_some_and(|last| now.duration_since(last) <= RENEWAL) {
            return;
        }
        let Some(identity) = self.identity.clone() else { return };
        match self.renew(&identity) {
            Ok(()) => self.renewed = Some(now),
            // The guest gets the report of before; what it can see is that its user data is not in it.
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no new report for the guest")
            }
        }
    }

    /// What follows from a command that the TPM carried out.
    fn learn(&mut self, command: &Incoming<'_>) {
        if let Ok(Some((handle::PLATFORM, password))) = command.hierarchy_change_auth() {
            match password {
                Some(password) => self.platform_password = Zeroizing::new(password.to_vec()),
                None => tracing::warn!(
                    "the platform password was set unseen; the guest's report will stay as it is"
                ),
            }
        }
        let Ok(Some(extend)) = command.pcr_extend() else { return };
        if let (Ok(pcr), Some(digest)) = (u8::try_from(extend.pcr), extend.sha256)
            && self.extends.len() < MAX_EXTENDS
        {
            self.extends.push((pcr, digest));
        }
        if extend.pcr == VOLUME_PCR && self.expected.is_some() && !std::mem::replace(&mut self.opened, true) {
            self.owner.volume_opened();
        }
    }

    fn keep_state(&mut self) -> Result<(), Stop> {
        let version = self.engine.state_version();
        if version != self.kept {
            self.owner.keep(self.engine.state())?;
            self.kept = version;
        }
        Ok(())
    }

    fn run(&mut self, bytes: &[u8]) -> Vec<u8> {
        const FAILURE: ResponseCode = ResponseCode(0x101);
        let command = Incoming::parse(bytes).ok();
        if self.refused || command.as_ref().is_some_and(|command| !self.watch(command)) {
            return command::error_response(FAILURE).to_vec();
        }
        let response = match self.engine.process(bytes) {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, "a TPM command was not processed");
                return command::error_response(FAILURE).to_vec();
            }
        };
        if let Some(command) = command.filter(|_| command::success(&response).is_ok()) {
            self.learn(&command);
        }
        if let Err(stop) = self.keep_state() {
            let failure = stop.failure();
            tracing::error!(
                code = failure.code,
                what = failure.actual,
                "the TPM's state could not be kept yet"
            );
        }
        response
    }
}

impl TpmDevice for Front {
    fn power_on(&mut self) -> bool {
        self.engine.power_off();
        if self.refused {
            return false;
        }
        self.opened = false;
        self.extends.clear();
        if let Err(stop) = self.prepare_keys().and_then(|()| self.seal()) {
            self.stop(stop);
            return false;
        }
        match self.engine.power_on() {
            Ok(()) => true,
            Err(error) => {
                self.stop(TpmError::from(error).into());
                false
            }
        }
    }

    fn power_off(&mut self) {
        self.engine.power_off();
    }

    fn command(&mut self, command: &[u8]) -> Vec<u8> {
        self.run(command)
    }

    fn set_locality(&mut self, locality: u8) {
        self.engine.set_locality(locality);
    }

    fn buffer_sizes(&mut self, wanted: u32) -> BufferSizes {
        self.engine.buffer_sizes(wanted)
    }

    fn established(&self) -> bool {
        self.engine.established()
    }

    fn reset_established(&mut self, locality: u8) -> bool {
        self.engine.reset_established(locality)
    }
}
