//! The guest's port to the secure processor on a development host: what passes, and what a guest may try.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket;
use paravisor::development_host::guest_port::{Pace, serve};
use snp::psp::port::{MAX_PORT_REQUEST, read_response, write_request};
use snp::psp::{DerivedKeyRequest, FieldSelect, GuestRequest, GuestResponse, ReportRequest, status};

use crate::lab::processor::Context;

/// A served port; the server ends with this value.
struct Port {
    folder: tempfile::TempDir,
    listener: UnixListener,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

impl Port {
    fn of(context: Context) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("port")).unwrap();
        let served = listener.try_clone().unwrap();
        let server = Some(std::thread::spawn(move || serve(&served, &context)));
        Self { folder, listener, server }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("port")).unwrap()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        socket::shutdown(self.listener.as_raw_fd(), socket::Shutdown::Both).unwrap();
        // A server that waits on a listener that is shut down is told EINVAL (accept(2)).
        let ended = self.server.take().unwrap().join().unwrap();
        if let Err(error) = ended {
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
        }
    }
}

fn port() -> Port {
    Port::of(Context::launch(b"launch document"))
}

fn ask(stream: &mut UnixStream, tag: u64, request: &GuestRequest) -> GuestResponse {
    write_request(tag, request, stream).unwrap();
    let (back, response) = read_response(stream).unwrap();
    assert_eq!(back, tag);
    response
}

fn at(vmpl: u32) -> ReportRequest {
    ReportRequest { report_data: [0xAB; 64], vmpl, key_select: 0 }
}

fn key(vmpl: u32, field_select: u64) -> DerivedKeyRequest {
    DerivedKeyRequest {
        root_key_select: 0,
        field_select: FieldSelect(field_select),
        vmpl,
        guest_svn: 0,
        tcb_version: 0,
        launch_mit_vector: None,
    }
}

fn assert_refused(response: GuestResponse) {
    match response {
        GuestResponse::Error { status, message } => {
            assert_eq!(status, status::INVALID_PARAM);
            assert!(message.contains("VMPL"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guest_gets_reports_of_its_own_levels() {
    let port = port();
    let mut stream = port.connect();
    for vmpl in 1..=3 {
        let GuestResponse::Report { report } = ask(&mut stream, 7, &GuestRequest::Report(at(vmpl))) else {
            panic!("no report at VMPL {vmpl}");
        };
        let report = snp::Report::parse(&report).unwrap();
        assert_eq!((report.vmpl, report.report_data), (vmpl, [0xAB; 64]));
        let extended = ask(&mut stream, 8, &GuestRequest::ExtendedReport(at(vmpl)));
        let GuestResponse::ExtendedReport { certificates_pem, .. } = extended else {
            panic!("no extended report at VMPL {vmpl}");
        };
        assert_eq!(certificates_pem.matches("BEGIN CERTIFICATE").count(), 3);
    }
}

#[test]
fn a_guest_asking_for_vmpl_0_is_refused() {
    let port = port();
    let mut stream = port.connect();
    for request in [
        GuestRequest::Report(at(0)),
        GuestRequest::ExtendedReport(at(0)),
        GuestRequest::DerivedKey(key(0, 0)),
    ] {
        assert_refused(ask(&mut stream, 1, &request));
    }
    for vmpl in [4, 0x1_0000, u32::MAX] {
        assert_refused(ask(&mut stream, 2, &GuestRequest::Report(at(vmpl))));
    }
}

#[test]
fn a_guest_never_derives_a_key_of_the_paravisor() {
    let select = FieldSelect::MEASUREMENT | FieldSelect::POLICY;
    let context = Context::launch(b"one guest, both sides");
    let own = [0, select].map(|fields| context.derived_key(&key(0, fields)));
    let port = Port::of(context);
    let mut stream = port.connect();
    let mut seen = own.to_vec();
    for vmpl in 1..=3 {
        for fields in [0, select] {
            let GuestResponse::DerivedKey { key } =
                ask(&mut stream, 3, &GuestRequest::DerivedKey(key(vmpl, fields)))
            else {
                panic!("no key at VMPL {vmpl}");
            };
            assert!(!seen.contains(&key), "the key of VMPL {vmpl} is another's too");
            seen.push(key);
        }
    }
}

#[test]
fn nonsense_is_answered_or_ends_the_connection_and_the_next_one_works() {
    let port = port();
    let mut stream = port.connect();
    // Within its bounds: an opcode of the processor's own answers.
    stream.write_all(&[&[9, 0, 0, 0, 0, 0, 0, 0][..], &[1, 0, 0, 0, 0x46]].concat()).unwrap();
    let (tag, response) = read_response(&mut stream).unwrap();
    drop(stream);
    assert!(tag == 9 && matches!(response, GuestResponse::Error { status: status::INVALID_PARAM, .. }));

    let too_long = u32::try_from(MAX_PORT_REQUEST).unwrap() + 1;
    for length in [0, too_long, u32::MAX] {
        let mut stream = port.connect();
        stream.write_all(&[&[0; 8][..], &length.to_le_bytes()].concat()).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "length {length}");
        drop(stream);
        let mut stream = port.connect();
        assert!(matches!(ask(&mut stream, 4, &GuestRequest::Report(at(1))), GuestResponse::Report { .. }));
    }
    let mut cut = port.connect();
    cut.write_all(&[1, 2, 3, 4, 5, 6, 7, 8, 97, 0]).unwrap();
    cut.shutdown(Shutdown::Both).unwrap();
    let mut stream = port.connect();
    assert!(matches!(ask(&mut stream, 5, &GuestRequest::Report(at(1))), GuestResponse::Report { .. }));
}

#[test]
fn a_guest_that_asks_without_pause_waits() {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    for request in 0..Pace::BURST {
        assert_eq!(pace.next(start), Duration::ZERO, "request {request}");
    }
    assert_eq!(pace.next(start), Pace::INTERVAL);
    assert_eq!(pace.next(start), Pace::INTERVAL * 2);
    let later = start + Duration::from_secs(3600);
    for _ in 0..Pace::BURST {
        assert_eq!(pace.next(later), Duration::ZERO, "an hour's pause gives no more credit than full");
    }
    assert_eq!(pace.next(later), Pace::INTERVAL);
}
