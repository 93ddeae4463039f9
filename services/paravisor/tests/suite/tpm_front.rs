//! What the paravisor adds to the guest's TPM, against a real libtpms.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paravisor::failure::Stop;
use paravisor::tpm::front::{Front, TpmOwner};
use paravisor::tpm::identity::{self, TpmError, TpmIdentity};
use paravisor::tpm::libtpms::LibTpms;
use paravisor::tpm::report::{ReportSource, VmConfiguration};
use paravisor::tpm::server::TpmDevice as _;
use paravisor::tpm::{certificate, front};
use vtpm::command::{self, CommandError, handle, nv};
use vtpm::hcl::{
    HANDLE_AK, HANDLE_SRK, HclReport, MAX_REPORT, NV_INDEX_AK_CERTIFICATE, NV_INDEX_REPORT,
    NV_INDEX_USER_DATA,
};
use vtpm::key::RsaPublic;
use vtpm::predict::{Initrd, Loader, PredictedEvent, Prediction};
use zeroize::Zeroizing;

use crate::support::one_tpm_at_a_time;

/// What the owner was told.
#[derive(Default)]
struct Told {
    certificate: Option<(RsaPublic, Vec<u8>)>,
    boots: Vec<TpmIdentity>,
    state: Zeroizing<Vec<u8>>,
    opened: u32,
    refused: Vec<Stop>,
    full: bool,
    prediction: Option<Prediction>,
}

#[derive(Clone, Default)]
struct Owner(Arc<Mutex<Told>>);

impl TpmOwner for Owner {
    fn before_boot(&mut self, identity: &TpmIdentity) -> Result<Option<Prediction>, Stop> {
        let mut told = self.0.lock().unwrap();
        told.boots.push(identity.clone());
        Ok(told.prediction.clone())
    }
    fn certificate(&self, ak: &RsaPublic) -> Result<Vec<u8>, TpmError> {
        let mut told = self.0.lock().unwrap();
        if let Some((key, certificate)) = &told.certificate {
            assert_eq!(key, ak);
            return Ok(certificate.clone());
        }
        let made = certificate::certify("VM", ak, "2026-01-01T00:00:00Z".parse().unwrap())?;
        told.certificate = Some((ak.clone(), made.clone()));
        Ok(made)
    }
    fn keep(&mut self, state: Zeroizing<Vec<u8>>) -> Result<(), Stop> {
        let mut told = self.0.lock().unwrap();
        if told.full {
            return Err(Stop::io("keeping", &std::io::ErrorKind::StorageFull.into()));
        }
        told.state = state;
        Ok(())
    }
    fn volume_opened(&mut self) {
        self.0.lock().unwrap().opened += 1;
    }
    fn refuse(&mut self, stop: Stop) {
        self.0.lock().unwrap().refused.push(stop);
    }
}

/// Reports with the data in their place and a serial number.
#[derive(Default)]
struct Reports(u8);

/// A secure processor that is being started again.
struct AwayForNow;

impl ReportSource for AwayForNow {
    fn report(&mut self, _report_data: [u8; 64]) -> Result<Vec<u8>, Stop> {
        Err(Stop::refused("SecureProcessorFailed", "secure processor", "an answer", "none", "r", "m")
            .transient())
    }
}

impl ReportSource for Reports {
    fn report(&mut self, report_data: [u8; 64]) -> Result<Vec<u8>, Stop> {
        self.0 += 1;
        let mut report = vec![self.0; 0x4a0];
        report[0x50..0x90].copy_from_slice(&report_data);
        Ok(report)
    }
}

static SECONDS: AtomicU64 = AtomicU64::new(0);

fn clock() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_secs(SECONDS.load(Ordering::SeqCst))
}

const RIGHT: [u8; 32] = [0x15; 32];

fn configuration() -> VmConfiguration {
    VmConfiguration {
        config_drive: "6oMh2Dq1AjWZ5cQAFBwWgZ9g4Jq7cO2hhpq3Bcs3cWY".to_owned(),
        console_enabled: true,
        secure_boot: true,
        tpm_enabled: true,
        tpm_persisted: true,
        vm_unique_id: "0A1B2C3D-0000-1111-2222-333344445555".to_owned(),
    }
}

struct Guest {
    front: Front,
    owner: Owner,
}

impl Guest {
    fn new(state: Option<Zeroizing<Vec<u8>>>, owner: Owner, expected: Option<[u8; 32]>) -> Self {
        let fresh = state.is_none();
        let mut engine = LibTpms::new(state).unwrap();
        if fresh {
            identity::allocate_banks(&mut engine).unwrap();
        }
        let reports = Box::<Reports>::default();
        let front =
            front::Front::new(Box::new(engine), Box::new(owner.clone()), reports, configuration(), expected);
        Self { front: front.with_clock(clock), owner }
    }

    fn boot(&mut self) {
        assert!(self.front.power_on(), "{:?}", self.told().refused);
        self.run(&command::startup_clear(), command::success).unwrap();
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.owner.0.lock().unwrap()
    }

    fn run<T>(
        &mut self,
        bytes: &[u8],
        parse: fn(&[u8]) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        parse(&self.front.command(bytes))
    }

    fn read(&mut self, index: u32) -> Vec<u8> {
        let size = self.run(&command::nv_read_public(index), command::nv_public).unwrap().size;
        let mut data = Vec::new();
        while data.len() < usize::from(size) {
            let offset = u16::try_from(data.len()).unwrap();
            let read = command::nv_read(index, &[], index, (size - offset).min(1024), offset);
            data.extend(self.run(&read, command::nv_data).unwrap());
        }
        data
    }

    fn code(&mut self, bytes: &[u8]) -> u32 {
        match self.run(bytes, command::success) {
            Ok(()) => 0,
            Err(CommandError::Tpm(code)) => code.0,
            Err(other) => panic!("{other}"),
        }
    }
}

fn report_serial(report: &[u8]) -> u8 {
    HclReport::parse(report).unwrap().snp_report[0]
}

fn claims(report: &[u8]) -> serde_json::Value {
    serde_json::from_slice(HclReport::parse(report).unwrap().claims).unwrap()
}

#[test]
fn keys_certificate_and_report_are_there_and_stay_the_same_over_boots() {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), None);
    guest.boot();
    let srk = guest.run(&command::read_public(HANDLE_SRK), command::read_public_key).unwrap();
    let ak = guest.run(&command::read_public(HANDLE_AK), command::read_public_key).unwrap();
    let certificate = guest.read(NV_INDEX_AK_CERTIFICATE);
    assert_eq!(guest.told().certificate.as_ref().unwrap().1, certificate);
    assert_eq!(guest.read(NV_INDEX_REPORT).len(), MAX_REPORT);
    let report = guest.read(NV_INDEX_REPORT);
    assert_eq!(claims(&report)["keys"][0]["n"], ak.rsa().unwrap().jwk_n());
    assert_eq!(claims(&report)["vm-configuration"]["vmUniqueId"], configuration().vm_unique_id);
    assert!(claims(&report).get("user-data").is_none());

    let (state, owner) = (guest.told().state.clone(), guest.owner.clone());
    drop(guest);
    let mut again = Guest::new(Some(state), owner, None);
    again.boot();
    let told = again.told();
    assert_eq!(told.boots[0], told.boots[1]);
    assert_eq!(told.boots[1], TpmIdentity { srk, ak });
    drop(told);
    assert_eq!(again.read(NV_INDEX_AK_CERTIFICATE), certificate);
}

#[test]
fn only_the_sha256_bank_is_measured_into() {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), None);
    guest.boot();
    guest.run(&command::pcr_extend(7, &[7; 32]), command::success).unwrap();
    let bank = guest.run(&command::pcr_read(&[7]), command::pcr_values).unwrap();
    assert_eq!(bank.value(7), Some(&vtpm::pcr::sha256(&[[0; 32], [7; 32]].concat())));
    // TPM2_PCR_Read of the SHA-1 bank answers no digest.
    let mut sha1 = command::pcr_read(&[7]);
    sha1[15] = 4;
    let response = guest.front.command(&sha1);
    assert_eq!(&response[response.len() - 4..], [0, 0, 0, 0]);
}

#[test]
fn what_the_guests_owner_removes_or_replaces_is_back_at_the_next_boot() {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), None);
    guest.boot();
    for object in [HANDLE_AK, HANDLE_SRK] {
        let evict = command::evict_control(handle::OWNER, &[], object, object);
        guest.run(&evict, command::success).unwrap();
    }
    // A key of the guest's own in the attestation key's place: the storage root template, under the endorsement hierarchy.
    let create = command::create_primary(handle::ENDORSEMENT, &[], &command::template::SRK);
    let (transient, _) = guest.run(&create, command::created_primary).unwrap();
    let plant = command::evict_control(handle::OWNER, &[], transient, HANDLE_AK);
    guest.run(&plant, command::success).unwrap();
    guest.boot();
    let told = guest.told();
    assert_eq!(told.boots[0], told.boots[1]);
    drop(told);
    guest.run(&command::read_public(HANDLE_SRK), command::read_public_key).unwrap();
    let ak = guest.run(&command::read_public(HANDLE_AK), command::read_public_key).unwrap();
    assert_eq!(ak, guest.told().boots[0].ak);
}

#[test]
fn the_guest_cannot_write_or_remove_what_the_platform_owns() {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), None);
    guest.boot();
    // As OVMF does before it starts a loader.
    let change = command::hierarchy_change_auth(handle::PLATFORM, &[], &[9; 32]);
    guest.run(&change, command::success).unwrap();
    for index in [NV_INDEX_REPORT, NV_INDEX_AK_CERTIFICATE] {
        for auth in [handle::OWNER, handle::PLATFORM, index] {
            let write = command::nv_write(auth, &[], index, b"forged", 0);
            assert_ne!(guest.code(&write), 0, "{auth:#x} writes {index:#x}");
        }
        for auth in [handle::OWNER, handle::PLATFORM] {
            let remove = command::nv_undefine_space(auth, &[], index);
            assert_ne!(guest.code(&remove), 0, "{auth:#x} removes {index:#x}");
        }
    }
}

#[test]
fn a_read_renews_the_report_with_the_guests_data_but_not_within_two_seconds() {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), None);
    guest.boot();
    let change = command::hierarchy_change_auth(handle::PLATFORM, &[], &[9; 32]);
    guest.run(&change, command::success).unwrap();
    let define = command::nv_define_space(handle::OWNER, &[], NV_INDEX_USER_DATA, nv::GUEST_DATA, 64);
    guest.run(&define, command::success).unwrap();
    let unwritten = guest.read(NV_INDEX_REPORT);
    assert!(claims(&unwritten).get("user-data").is_none());

    let write = command::nv_write(handle::OWNER, &[], NV_INDEX_USER_DATA, &[0xab; 64], 0);
    guest.run(&write, command::success).unwrap();
    SECONDS.fetch_add(1, Ordering::SeqCst);
    assert_eq!(report_serial(&guest.read(NV_INDEX_REPORT)), report_serial(&unwritten), "too early");
    SECONDS.fetch_add(2, Ordering::SeqCst);
    // A read that does not start at offset 0 renews nothing.
    let tail = command::nv_read(NV_INDEX_REPORT, &[], NV_INDEX_REPORT, 16, 64);
    guest.run(&tail, command::nv_data).unwrap();
    let fresh = guest.read(NV_INDEX_REPORT);
    assert_eq!(report_serial(&fresh), report_serial(&unwritten) + 1);
    assert_eq!(claims(&fresh)["user-data"], "ab".repeat(64));
    HclReport::parse(&fresh).unwrap();
    // All members have a fixed length: what fits here fits always.
    let length = HclReport::parse(&fresh).unwrap().claims.len();
    assert!(length <= vtpm::hcl::MAX_CLAIMS - 30, "{length} bytes of claims leave little room");
}

#[test]
fn user_data_behind_a_password_neither_reaches_a_report_nor_locks_the_tpm() {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), None);
    guest.boot();
    let attributes = nv::AUTHREAD | nv::AUTHWRITE | nv::OWNERWRITE;
    let define = command::nv_define_space(handle::OWNER, &[], NV_INDEX_USER_DATA, attributes, 64);
    guest.run(&define, command::success).unwrap();
    let write = command::nv_write(handle::OWNER, &[], NV_INDEX_USER_DATA, &[1; 64], 0);
    guest.run(&write, command::success).unwrap();
    for _ in 0..40 {
        SECONDS.fetch_add(3, Ordering::SeqCst);
        let report = guest.read(NV_INDEX_REPORT);
        assert!(claims(&report).get("user-data").is_none());
    }
}

#[test]
fn the_right_volume_key_is_told_once_and_later_measurements_do_not_matter() {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), Some(RIGHT));
    guest.boot();
    for (pcr, digest) in [(14, [1; 32]), (15, RIGHT), (15, [2; 32]), (15, RIGHT)] {
        guest.run(&command::pcr_extend(pcr, &digest), command::success).unwrap();
    }
    assert_eq!(guest.told().opened, 1);
    guest.boot();
    guest.run(&command::pcr_extend(15, &RIGHT), command::success).unwrap();
    assert_eq!(guest.told().opened, 2, "a new boot starts with an untouched register");
}

fn attack(measurement: &[u8]) {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), Some(RIGHT));
    guest.boot();
    assert_eq!(guest.code(measurement), 0x101);
    assert_eq!(guest.told().refused[0].failure().code, "ForeignVolumeOpened");
    assert_eq!(guest.code(&command::pcr_extend(15, &RIGHT)), 0x101, "no way back");
    assert!(!guest.front.power_on(), "not by a reset either");
    assert_eq!(guest.told().opened, 0);
}

#[test]
fn attack_another_volumes_key_measured_stops_the_vm() {
    attack(&command::pcr_extend(15, &[0xee; 32]));
}

#[test]
fn attack_a_foreign_measurement_beside_the_right_one_stops_the_vm() {
    // Two digests for one bank: which one counts would be the TPM's choice.
    let mut bytes = command::pcr_extend(15, &RIGHT);
    let length = u8::try_from(bytes.len() + 34).unwrap();
    bytes[5] = length;
    let count = bytes.len() - 35;
    assert_eq!(bytes[count], 1);
    bytes[count] = 2;
    bytes.extend([0, 0x0b]);
    bytes.extend([0xee; 32]);
    attack(&bytes);
}

#[test]
fn attack_an_event_instead_of_a_digest_stops_the_vm() {
    let event = hex::decode(concat!(
        "8002",
        "00000020",
        "0000013c",
        "0000000f",
        "00000009",
        "40000009",
        "0000010000",
        "0003616263"
    ));
    attack(&event.unwrap());
}

#[test]
fn a_full_disk_does_not_stop_the_tpm_and_the_state_is_kept_later() {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), None);
    guest.boot();
    let before = guest.told().state.clone();
    guest.told().full = true;
    let define = command::nv_define_space(handle::OWNER, &[], NV_INDEX_USER_DATA, nv::GUEST_DATA, 64);
    guest.run(&define, command::success).unwrap();
    assert!(guest.told().state == before);
    guest.told().full = false;
    guest.run(&command::pcr_read(&[0]), command::pcr_values).unwrap();
    assert!(guest.told().state != before);
}

/// As systemd does before it unseals: PolicyPCR in a session (of which there is none here: the TPM will refuse).
fn policy_pcr() -> Vec<u8> {
    let mut bytes = hex::decode("8001000000000000017f030000000000").unwrap();
    bytes.extend(command::pcr_selection(&[4]));
    bytes[5] = u8::try_from(bytes.len()).unwrap();
    bytes
}

fn predicted(digest: [u8; 32]) -> Prediction {
    Prediction {
        loader: Loader::SystemdBoot,
        entry: "debian-1.conf".to_owned(),
        version: "1".to_owned(),
        release: "1".to_owned(),
        initrd: Initrd::Files(Vec::new()),
        options: String::new(),
        pcrs: std::collections::BTreeMap::new(),
        events: vec![PredictedEvent { pcr: 4, digest, what: "the kernel".to_owned() }],
        seal_pcrs: vec![4, 15],
    }
}

#[test]
fn a_boot_as_predicted_may_ask_for_the_volume_key() {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), Some(RIGHT));
    guest.told().prediction = Some(predicted([4; 32]));
    guest.boot();
    guest.run(&command::pcr_extend(4, &[4; 32]), command::success).unwrap();
    assert_ne!(guest.code(&policy_pcr()), 0x101);
    assert!(guest.told().refused.is_empty());
}

#[test]
fn attack_another_kernel_is_named_when_the_guest_asks_for_the_volume_key() {
    let _tpm = one_tpm_at_a_time();
    let mut guest = Guest::new(None, Owner::default(), Some(RIGHT));
    guest.told().prediction = Some(predicted([4; 32]));
    guest.boot();
    guest.run(&command::pcr_extend(4, &[0xee; 32]), command::success).unwrap();
    assert_eq!(guest.code(&policy_pcr()), 0x101);
    let told = guest.told();
    let failure = told.refused[0].failure();
    assert_eq!(failure.code, "OtherBootMeasured");
    assert!(failure.actual.contains("the kernel") && failure.actual.contains("eeee"), "{}", failure.actual);
}

#[test]
fn a_secure_processor_that_is_away_is_a_passing_fault_and_no_broken_tpm() {
    let _turn = one_tpm_at_a_time();
    let mut engine = LibTpms::new(None).unwrap();
    identity::allocate_banks(&mut engine).unwrap();
    let owner = Box::<Owner>::default();
    let mut front = front::Front::new(Box::new(engine), owner, Box::new(AwayForNow), configuration(), None);
    let failure = front.prepare_keys().unwrap_err().failure().clone();
    assert_eq!((failure.code.as_str(), failure.transient), ("SecureProcessorFailed", true));
}
