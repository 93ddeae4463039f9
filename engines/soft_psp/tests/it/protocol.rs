//! The guests' requests, and frames that are none.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use snp::psp::{
    DerivedKeyRequest, FieldSelect, GuestRequest, GuestResponse, HostRequest, HostResponse, ReportRequest,
    status,
};

use crate::processor::{Guest, POLICY, Processor};

const REQUEST: DerivedKeyRequest = DerivedKeyRequest {
    root_key_select: 0,
    field_select: FieldSelect(0),
    vmpl: 0,
    guest_svn: 0,
    tcb_version: 0,
    launch_mit_vector: None,
};

fn key(guest: &Guest, request: DerivedKeyRequest) -> [u8; 32] {
    match guest.ask(&GuestRequest::DerivedKey(request)) {
        GuestResponse::DerivedKey { key } => key,
        other => panic!("{other:?}"),
    }
}

#[test]
fn derived_keys_depend_on_what_is_mixed_in() {
    let mut processor = Processor::start();
    let one = processor.launch(POLICY);
    let two = processor.launch(POLICY | 1 << 19);
    let select = |bits| DerivedKeyRequest { field_select: FieldSelect(bits), ..REQUEST };
    let vmrk = || DerivedKeyRequest { root_key_select: 1, ..REQUEST };
    assert_eq!(key(&one, select(FieldSelect::MEASUREMENT)), key(&two, select(FieldSelect::MEASUREMENT)));
    assert_ne!(key(&one, select(FieldSelect::POLICY)), key(&two, select(FieldSelect::POLICY)));
    assert_ne!(key(&one, select(0)), key(&one, select(FieldSelect::MEASUREMENT)));
    assert_ne!(key(&one, DerivedKeyRequest { vmpl: 1, ..REQUEST }), key(&one, REQUEST));
    assert_ne!(key(&one, vmrk()), key(&one, REQUEST), "another root key");
    assert_ne!(key(&one, vmrk()), key(&two, vmrk()), "every guest has a root key of its own");
    assert_eq!(key(&one, vmrk()), key(&one, vmrk()));
    let tcb = |snp| {
        let tcb_version = u64::from_le_bytes([4, 0, 0, 0, 0, 0, snp, 0]);
        DerivedKeyRequest { tcb_version, ..select(FieldSelect::TCB_VERSION) }
    };
    assert_ne!(key(&one, tcb(23)), key(&one, tcb(24)));
    let before = key(&one, select(FieldSelect::MEASUREMENT));
    processor.restart("");
    let again = processor.launch(POLICY);
    assert_eq!(key(&again, select(FieldSelect::MEASUREMENT)), before, "sealed data opens after a restart");
}

#[test]
fn derived_keys_never_exceed_the_guest_or_the_platform() {
    let processor = Processor::start();
    let guest = processor.launch(POLICY);
    let refused = |request| guest.refusal(&GuestRequest::DerivedKey(request));
    let above = u64::from_le_bytes([4, 0, 0, 0, 0, 0, 25, 0]);
    let reserved = FieldSelect(1 << 7);
    let mitigations = FieldSelect(FieldSelect::LAUNCH_MIT_VECTOR);
    let cases = [
        (DerivedKeyRequest { guest_svn: 1, ..REQUEST }, status::INVALID_PARAM),
        (DerivedKeyRequest { tcb_version: above, ..REQUEST }, status::INVALID_PARAM),
        (DerivedKeyRequest { vmpl: 4, ..REQUEST }, status::INVALID_PARAM),
        (DerivedKeyRequest { field_select: reserved, ..REQUEST }, status::INVALID_PARAM),
        (DerivedKeyRequest { field_select: mitigations, ..REQUEST }, status::INVALID_PARAM),
        (DerivedKeyRequest { launch_mit_vector: Some(1), ..REQUEST }, status::INVALID_PARAM),
        (DerivedKeyRequest { root_key_select: 8, ..REQUEST }, status::INVALID_PARAM),
        (DerivedKeyRequest { root_key_select: 6, ..REQUEST }, status::INVALID_PARAM),
        (DerivedKeyRequest { root_key_select: 4, ..REQUEST }, status::INVALID_KEY),
    ];
    for (request, expected) in cases {
        let what = format!("{request:?}");
        assert_eq!(refused(request), expected, "{what}");
    }
}

#[test]
fn a_key_that_is_not_installed_and_a_vmpl_that_does_not_exist_are_refused() {
    let processor = Processor::start();
    let guest = processor.launch(POLICY);
    let request =
        |vmpl, key_select| GuestRequest::Report(ReportRequest { report_data: [0; 64], vmpl, key_select });
    assert_eq!(guest.refusal(&request(0, 2)), status::INVALID_KEY);
    assert_eq!(guest.refusal(&request(0, 3)), status::INVALID_PARAM);
    assert_eq!(guest.refusal(&request(4, 0)), status::INVALID_PARAM);
    let GuestResponse::Report { report } = guest.ask(&request(3, 1)) else { panic!("no report") };
    assert_eq!(snp::Report::parse(&report).unwrap().vmpl, 3);
}

#[test]
fn a_decommissioned_guest_gets_nothing_more() {
    let processor = Processor::start();
    let guest = processor.launch(POLICY);
    let mut open = UnixStream::connect(&guest.socket).unwrap();
    GuestRequest::extended_report([0; 64]).write(&mut open).unwrap();
    assert!(matches!(GuestResponse::read(&mut open).unwrap(), GuestResponse::ExtendedReport { .. }));
    let decommission = HostRequest::Decommission { context: guest.context };
    assert_eq!(processor.host(&decommission), HostResponse::Decommissioned);
    assert!(UnixStream::connect(&guest.socket).is_err(), "its socket is gone");
    GuestRequest::extended_report([0; 64]).write(&mut open).unwrap();
    let answer = GuestResponse::read(&mut open).unwrap();
    assert!(matches!(answer, GuestResponse::Error { status: status::INVALID_GUEST, .. }), "{answer:?}");
}

#[test]
fn many_clients_at_once_get_their_own_answers() {
    let processor = Processor::start();
    std::thread::scope(|scope| {
        for client in 0..8_u8 {
            let processor = &processor;
            scope.spawn(move || {
                let guest = processor.launch(POLICY);
                for round in 0..8 {
                    let data = [client * 8 + round; 64];
                    let report = snp::Report::parse(&guest.evidence(data).0).unwrap();
                    assert_eq!(report.report_data, data);
                }
            });
        }
    });
}

#[test]
fn malformed_frames_get_an_error_and_hurt_nobody_else() {
    let processor = Processor::start();
    let guest = processor.launch(POLICY);
    let mut host = processor.host_stream();
    for frame in [
        &[2, 0, 0, 0, 0x77, 0x00][..],                    // no such command
        &[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],        // seven bytes of policy
        &[10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], // nine
        &[18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0][..], // page type 9
    ] {
        host.write_all(frame).unwrap();
        let answer = HostResponse::read(&mut host).unwrap();
        assert!(matches!(answer, HostResponse::Error { code: status::INVALID_COMMAND, .. }), "{answer:?}");
    }
    let mut inside = UnixStream::connect(&guest.socket).unwrap();
    inside.write_all(&[2, 0, 0, 0, 5, 0]).unwrap();
    let answer = GuestResponse::read(&mut inside).unwrap();
    assert!(matches!(answer, GuestResponse::Error { status: status::INVALID_PARAM, .. }), "{answer:?}");
    for length in [[0, 0, 0, 0], [1, 0, 0, 1], [0xFF; 4]] {
        let mut endless = processor.host_stream();
        endless.write_all(&length).unwrap();
        assert!(HostResponse::read(&mut endless).is_err(), "the connection is closed");
    }
    let mut cut = processor.host_stream();
    cut.write_all(&[9, 0, 0, 0, 1, 0]).unwrap();
    cut.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(HostResponse::read(&mut cut).is_err(), "half a command is none");
    let HostResponse::Status(platform) = processor.host(&HostRequest::PlatformStatus) else {
        panic!("no status")
    };
    assert_eq!(platform.guests, 1, "nothing of all this started a guest");
}
