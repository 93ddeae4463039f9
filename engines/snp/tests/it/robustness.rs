//! Whatever bytes come, the parsers answer; and what was written is read back.

use proptest::collection::vec;
use proptest::prelude::*;
use snp::launch::{Ovmf, PageType};
use snp::psp::{
    DerivedKeyRequest, FieldSelect, FrameError, GuestRequest, GuestResponse, HostRequest, HostResponse,
    IdBlock, PlatformStatus, ReportRequest,
};
use snp::{CertChain, Crls, Report, TrustAnchors};

use crate::support::{Evidence, data};

/// Good bytes with some of them replaced, cut off or added.
fn mutated(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = good.len();
    let edits = vec((0..len, any::<u8>()), 0..8);
    (edits, 0..=len, vec(any::<u8>(), 0..4), any::<bool>()).prop_map(move |(edits, cut, more, shorten)| {
        let mut bytes = good.clone();
        edits.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        if shorten {
            bytes.truncate(cut);
        }
        bytes.extend(more);
        bytes
    })
}

proptest! {
    #[test]
    fn any_report(bytes in vec(any::<u8>(), 0..1300)) {
        let _ = Report::parse(&bytes);
    }

    #[test]
    fn a_report_of_the_right_length(bytes in vec(any::<u8>(), 0x4A0)) {
        if let Ok(report) = Report::parse(&bytes) {
            prop_assert_eq!(Report::parse(&report.encode()), Ok(report));
        }
    }

    #[test]
    fn an_altered_report_never_verifies(report in mutated(Evidence::milan().report)) {
        let good = Evidence::milan();
        let same = report == good.report;
        let evidence = Evidence { report, ..good };
        prop_assert_eq!(evidence.verify().is_ok(), same);
    }

    #[test]
    fn an_altered_certificate_never_verifies(leaf in mutated(Evidence::milan().leaf)) {
        let good = Evidence::milan();
        let same = leaf == good.leaf;
        if let Ok(chain) = CertChain::from_der(&leaf, &good.ask, &good.ark) {
            let verified =
                snp::verify(&good.report, &chain, &TrustAnchors::amd(), &Crls::default(), good.now);
            prop_assert_eq!(verified.is_ok(), same);
        }
    }

    #[test]
    fn any_pem(text in mutated(Evidence::milan().chain().to_pem().into_bytes())) {
        let _ = CertChain::from_pem(&text);
    }

    #[test]
    fn any_revocation_list(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(Crls::default().add(&bytes, &TrustAnchors::amd()).is_err());
    }

    #[test]
    fn any_firmware(image in mutated(data("ovmf-amdsev-suffix.bin"))) {
        let _ = Ovmf::parse(&image);
    }

    #[test]
    fn firmware_with_a_damaged_tail(edits in vec((3000usize..4096, any::<u8>()), 1..12)) {
        let mut image = data("ovmf-amdsev-suffix.bin");
        edits.into_iter().for_each(|(at, byte)| image[at] = byte);
        let _ = Ovmf::parse(&image);
    }

    #[test]
    fn any_frame(bytes in vec(any::<u8>(), 0..5000)) {
        let _ = HostRequest::decode(&bytes);
        let _ = GuestRequest::decode(&bytes);
        let _ = HostResponse::read(&mut bytes.as_slice());
        let _ = GuestResponse::read(&mut bytes.as_slice());
    }
}

fn host_requests() -> Vec<HostRequest> {
    let id = IdBlock { block: [7; 96], auth: Box::new([8; 4096]), author_key: true };
    vec![
        HostRequest::LaunchStart { policy: 0x3_0000 },
        HostRequest::LaunchUpdate {
            context: 1,
            page_type: PageType::Cpuid,
            gpa: 0x1000,
            data: vec![3; 4096],
        },
        HostRequest::LaunchFinish { context: 2, host_data: [9; 32], id_block: None },
        HostRequest::LaunchFinish { context: 2, host_data: [9; 32], id_block: Some(Box::new(id)) },
        HostRequest::Decommission { context: u64::MAX },
        HostRequest::PlatformStatus,
    ]
}

fn host_responses() -> Vec<HostResponse> {
    let report = Evidence::milan().verify().unwrap().report().clone();
    vec![
        HostResponse::Started { context: 5 },
        HostResponse::Updated,
        HostResponse::Finished { launch_digest: [1; 48], guest_socket: "/run/ä.sock".to_owned() },
        HostResponse::Decommissioned,
        HostResponse::Status(PlatformStatus {
            version: report.current_version,
            guests: 1,
            max_guests: 2,
            reported_tcb: report.reported_tcb,
            chip_id: report.chip_id,
        }),
        HostResponse::Error { code: 7, message: "no".to_owned() },
    ]
}

fn guest_requests() -> Vec<GuestRequest> {
    let report = ReportRequest { report_data: [1; 64], vmpl: 2, key_select: 1 };
    let key = |launch_mit_vector| DerivedKeyRequest {
        root_key_select: 1,
        field_select: FieldSelect(9),
        vmpl: 3,
        guest_svn: 4,
        tcb_version: 5,
        launch_mit_vector,
    };
    vec![
        GuestRequest::Report(report.clone()),
        GuestRequest::ExtendedReport(report),
        GuestRequest::DerivedKey(key(None)),
        GuestRequest::DerivedKey(key(Some(6))),
    ]
}

fn guest_responses() -> Vec<GuestResponse> {
    let Evidence { report, .. } = Evidence::milan();
    let certificates_pem = Evidence::milan().chain().to_pem();
    vec![
        GuestResponse::Report { report: report.clone() },
        GuestResponse::ExtendedReport { report, certificates_pem },
        GuestResponse::DerivedKey { key: [9; 32] },
        GuestResponse::Error { status: 0x16, message: "no".to_owned() },
    ]
}

/// Writes each message, reads all back, and reads each cut short by one byte.
macro_rules! travels {
    ($name:ident, $messages:expr, $kind:ty) => {
        #[test]
        fn $name() {
            let mut wire = Vec::new();
            for message in $messages {
                message.write(&mut wire).unwrap();
                let mut one = Vec::new();
                message.write(&mut one).unwrap();
                one.pop();
                assert!(matches!(<$kind>::read(&mut one.as_slice()), Err(FrameError::Io(_))), "{message:?}");
            }
            let mut from = wire.as_slice();
            for message in $messages {
                assert_eq!(<$kind>::read(&mut from).unwrap(), message);
            }
            assert!(matches!(<$kind>::read(&mut from), Err(FrameError::Closed)));
        }
    };
}

travels!(host_requests_travel, host_requests(), HostRequest);
travels!(host_responses_travel, host_responses(), HostResponse);
travels!(guest_requests_travel, guest_requests(), GuestRequest);
travels!(guest_responses_travel, guest_responses(), GuestResponse);

#[test]
fn a_message_over_16_mib_is_not_written() {
    let request = HostRequest::LaunchUpdate {
        context: 1,
        page_type: PageType::Normal,
        gpa: 0,
        data: vec![0; 16 << 20],
    };
    assert!(request.write(&mut std::io::sink()).is_err());
}

#[test]
fn derived_keys_do_not_reach_a_log() {
    let shown = format!("{:?}", GuestResponse::DerivedKey { key: [0xAB; 32] });
    assert_eq!(shown, "DerivedKey");
}
