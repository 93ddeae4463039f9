//! The TCG event log: replay, and logs that are cut or forged.

use vtpm::event_log::{EV_NO_ACTION, EventLogError, parse};
use vtpm::pcr::sha256;

/// A real log (see `tests/data/README.md`), and the PCRs of the same boot.
const RECORDED: &[u8] = include_bytes!("../data/event-log-debian13.bin");
const RECORDED_PCRS: &str = include_str!("../data/event-log-debian13.pcrs");

#[test]
fn recorded_log_replays_to_the_recorded_pcrs() {
    let bank = parse(RECORDED).unwrap().replay();
    for line in RECORDED_PCRS.lines() {
        let (pcr, value) = line.split_once(' ').unwrap();
        let replayed = bank.value(pcr.parse().unwrap()).copied().unwrap_or_default();
        // PCR 10 is extended by the kernel's own measurements, which are not in the firmware's log.
        if pcr != "10" {
            assert_eq!(hex::encode(replayed), value, "PCR {pcr}");
        }
    }
}

#[test]
fn recorded_log_with_a_digest_changed_replays_to_another_pcr() {
    let good = parse(RECORDED).unwrap();
    let place = good.events.iter().position(|event| event.pcr == 9).unwrap();
    let mut forged = good.clone();
    forged.events[place].digest[0] ^= 1;
    assert_ne!(good.replay().value(9), forged.replay().value(9));
    assert_eq!(good.replay().value(4), forged.replay().value(4));
}

#[test]
fn recorded_log_names_what_a_prediction_of_another_boot_missed() {
    let log = parse(RECORDED).unwrap();
    let named = vtpm::predict::difference(&super::fixture::Machine::new().predict().unwrap(), &log);
    assert!(
        named.iter().any(|line| line.starts_with("PCR 4 event 3: expected program EFI/BOOT/BOOTX64.EFI"))
    );
    // Both boots have Secure Boot on, and measure the same separator and revocation level.
    for agreed in ["PCR 7 event 1:", "PCR 7 event 6:", "PCR 7 event 8:", "PCR 4 event 1:"] {
        assert!(!named.iter().any(|line| line.starts_with(agreed)), "{named:#?}");
    }
}

fn spec_id(algorithms: &[(u16, u16)]) -> Vec<u8> {
    let mut data = b"Spec ID Event03\0".to_vec();
    data.extend_from_slice(&[0, 0, 0, 0, 0, 2, 0, 2]);
    data.extend_from_slice(&u32::try_from(algorithms.len()).unwrap().to_le_bytes());
    for (algorithm, size) in algorithms {
        data.extend_from_slice(&algorithm.to_le_bytes());
        data.extend_from_slice(&size.to_le_bytes());
    }
    data.push(0);
    let mut out = vec![0; 4];
    out.extend_from_slice(&EV_NO_ACTION.to_le_bytes());
    out.extend_from_slice(&[0; 20]);
    out.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&data);
    out
}

fn event(pcr: u32, kind: u32, digests: &[(u16, &[u8])], data: &[u8]) -> Vec<u8> {
    let mut out = [pcr, kind, u32::try_from(digests.len()).unwrap()].map(u32::to_le_bytes).concat();
    for (algorithm, digest) in digests {
        out.extend_from_slice(&algorithm.to_le_bytes());
        out.extend_from_slice(digest);
    }
    out.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
    out.extend_from_slice(data);
    out
}

fn good() -> Vec<u8> {
    [
        spec_id(&[(4, 20), (0xB, 32)]),
        event(4, 5, &[(4, &[1; 20]), (0xB, &sha256(b"a"))], b"a"),
        event(0, EV_NO_ACTION, &[(4, &[0; 20]), (0xB, &[0; 32])], b"StartupLocality"),
        event(4, 4, &[(4, &[2; 20]), (0xB, &sha256(b"b"))], b"b"),
    ]
    .concat()
}

#[test]
fn log_replays_to_the_pcr_values() {
    let log = parse(&good()).unwrap();
    assert_eq!(log.events.len(), 2);
    let once = sha256(&[[0; 32], sha256(b"a")].concat());
    let twice = sha256(&[once, sha256(b"b")].concat());
    let bank = log.replay();
    assert_eq!(bank.value(4), Some(&twice));
    assert_eq!(bank.0.len(), 1);
}

#[test]
fn log_cut_off_anywhere_is_refused_or_shorter_by_whole_events() {
    let good = good();
    let whole = [spec_id(&[(4, 20), (0xB, 32)]).len()];
    let mut ends = whole.to_vec();
    for data in ["a", "StartupLocality", "b"] {
        ends.push(ends.last().unwrap() + 12 + 22 + 34 + 4 + data.len());
    }
    for cut in 0..good.len() {
        assert_eq!(parse(&good[..cut]).is_ok(), ends.contains(&cut), "cut at {cut}");
    }
}

#[test]
fn sixteen_zero_bytes_are_no_log() {
    assert_eq!(parse(&[0; 16]), Err(EventLogError::SpecId("truncated")));
    assert_eq!(parse(&[]), Err(EventLogError::SpecId("truncated")));
}

#[test]
fn log_without_its_header_event_is_refused() {
    let headless = good()[spec_id(&[(4, 20), (0xB, 32)]).len()..].to_vec();
    assert!(matches!(parse(&headless), Err(EventLogError::SpecId(_))));
}

#[test]
fn header_that_lies_about_a_digest_size_is_refused() {
    assert_eq!(parse(&spec_id(&[(0xB, 20)])), Err(EventLogError::SpecId("digest size")));
    assert_eq!(parse(&spec_id(&[(4, 20)])), Err(EventLogError::SpecId("no sha-256 bank")));
}

#[test]
fn digest_of_an_algorithm_that_the_header_does_not_list_is_refused() {
    let log = [spec_id(&[(0xB, 32)]), event(4, 5, &[(0xC, &[0; 48])], b"")].concat();
    assert_eq!(parse(&log), Err(EventLogError::Algorithm { event: 1, algorithm: 0xC }));
}

#[test]
fn event_that_hides_from_the_sha256_bank_is_refused() {
    let log = [spec_id(&[(4, 20), (0xB, 32)]), event(4, 5, &[(4, &[1; 20])], b"")].concat();
    assert_eq!(parse(&log), Err(EventLogError::Digest(1)));
    let log =
        [spec_id(&[(4, 20), (0xB, 32)]), event(4, 5, &[(0xB, &[1; 32]), (0xB, &[2; 32])], b"")].concat();
    assert_eq!(parse(&log), Err(EventLogError::Digest(1)));
}

#[test]
fn pcr_that_does_not_exist_is_refused() {
    let log = [spec_id(&[(0xB, 32)]), event(24, 5, &[(0xB, &[0; 32])], b"")].concat();
    assert_eq!(parse(&log), Err(EventLogError::Impossible(1)));
}

proptest::proptest! {
    #[test]
    fn damaged_logs_never_panic(at in 0usize..200, byte in proptest::num::u8::ANY, cut in 0usize..200) {
        let mut log = good();
        log[at] = byte;
        log.truncate(log.len() - cut);
        if let Ok(log) = parse(&log) {
            let _ = log.replay();
        }
    }
}

#[test]
fn recorded_log_proves_secure_boot_and_the_command_line() {
    let log = parse(RECORDED).unwrap();
    let state = vtpm::measured_boot::secure_boot(&log).unwrap();
    assert!(state.secure_boot);
    assert_eq!((state.pk.len(), state.dbx.len(), state.dbt), (1005, 76, None));
    let attested: Vec<u8> = (0..16).collect();
    let options = vtpm::measured_boot::kernel_command_line(&log, &attested).unwrap();
    assert!(options.starts_with("initrd=\\debian\\6.12.117"), "{options}");
    assert_eq!(vtpm::measured_boot::programs(&log).len(), 3, "shim, systemd-boot, kernel");
    let names: Vec<_> =
        vtpm::measured_boot::authorities(&log).iter().map(|found| found.name().unwrap()).collect();
    assert_eq!(names, ["db", "SbatLevel", "MokListRT"]);
}

#[test]
fn startup_locality_is_where_pcr_0_begins() {
    let locality = [&b"StartupLocality\0"[..], &[3]].concat();
    let log = [spec_id(&[(0xB, 32)]), event(0, EV_NO_ACTION, &[(0xB, &[0; 32])], &locality)].concat();
    let log = parse(&log).unwrap();
    assert_eq!(log.startup_locality, Some(3));
    assert_eq!(log.initial(0)[31], 3);
    assert_eq!((log.initial(1), log.initial(17)), ([0; 32], [0xFF; 32]));
    let elsewhere = [spec_id(&[(0xB, 32)]), event(1, EV_NO_ACTION, &[(0xB, &[0; 32])], &locality)].concat();
    assert_eq!(parse(&elsewhere).unwrap().startup_locality, None);
}
