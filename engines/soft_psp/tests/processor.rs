//! The software processor as a process: launches, reports, certificates, refusals; and two independent verifiers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;
use snp::launch::PageType;
use snp::psp::{
    DerivedKeyRequest, FieldSelect, GuestRequest, GuestResponse, HostRequest, HostResponse, ReportRequest,
    status,
};
use snp::{CertChain, Crls, GuestPolicy, TrustAnchors, TrustRoot, UnixTime};

struct Processor {
    dir: tempfile::TempDir,
    kds: SocketAddr,
    child: Child,
}

impl Processor {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kds = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Self::spawn(dir.path(), kds);
        Self { dir, kds, child }
    }

    fn spawn(dir: &Path, kds: SocketAddr) -> Child {
        let config = dir.join("config.toml");
        let text = format!(
            "state_dir = {0:?}\nruntime_dir = {1:?}\nhost_socket = {2:?}\nkds_listen = \"{kds}\"\n",
            dir.join("state"),
            dir.join("run"),
            dir.join("host.sock")
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_soft-pspd"));
        let child = command.arg("--config").arg(&config).stderr(Stdio::null()).spawn().unwrap();
        wait_for(|| UnixStream::connect(dir.join("host.sock")).is_ok() && TcpStream::connect(kds).is_ok());
        child
    }

    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(self.dir.path(), self.kds);
    }

    fn host(&self, request: &HostRequest) -> HostResponse {
        let mut stream = UnixStream::connect(self.dir.path().join("host.sock")).unwrap();
        request.write(&mut stream).unwrap();
        HostResponse::read(&mut stream).unwrap()
    }

    fn begin(&self, policy: u64) -> u64 {
        match self.host(&HostRequest::LaunchStart { policy }) {
            HostResponse::Started { context } => context,
            other => panic!("{other:?}"),
        }
    }

    fn launch(&self, policy: u64, host_data: [u8; 32]) -> (u64, PathBuf, [u8; 48]) {
        let context = self.begin(policy);
        let update = HostRequest::LaunchUpdate {
            context,
            page_type: PageType::Normal,
            gpa: 0x1000,
            data: vec![7; 8192],
        };
        assert_eq!(self.host(&update), HostResponse::Updated);
        match self.host(&HostRequest::LaunchFinish { context, host_data, id_block: None }) {
            HostResponse::Finished { launch_digest, guest_socket } => {
                (context, PathBuf::from(guest_socket), launch_digest)
            }
            other => panic!("{other:?}"),
        }
    }

    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.kds).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: kds\r\nConnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let status = String::from_utf8_lossy(&bytes[9..12]).parse().unwrap();
        (status, bytes[end..].to_vec())
    }

    fn root(&self) -> Vec<u8> {
        let pem = std::fs::read(self.dir.path().join("state/root.pem")).unwrap();
        let text = String::from_utf8(pem).unwrap();
        ca_der(&text)
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ca_der(pem: &str) -> Vec<u8> {
    Certificate::from_pem(pem.as_bytes()).unwrap().to_der().unwrap()
}

fn wait_for(mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < deadline, "the processor did not come up");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn guest(socket: &Path, request: &GuestRequest) -> GuestResponse {
    let mut stream = UnixStream::connect(socket).unwrap();
    request.write(&mut stream).unwrap();
    GuestResponse::read(&mut stream).unwrap()
}

fn evidence(socket: &Path, report_data: [u8; 64]) -> (Vec<u8>, String) {
    match guest(socket, &GuestRequest::extended_report(report_data)) {
        GuestResponse::ExtendedReport { report, certificates_pem } => (report, certificates_pem),
        other => panic!("{other:?}"),
    }
}

fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime(i64::try_from(since.as_secs()).unwrap())
}

fn policy() -> u64 {
    GuestPolicy::casemate().0
}

#[test]
fn our_verifier_accepts_its_evidence_under_its_root_and_only_there() {
    let processor = Processor::start();
    let (_, socket, digest) = processor.launch(policy(), [9; 32]);
    let (report, pem) = evidence(&socket, [5; 64]);
    let chain = CertChain::from_pem(pem.as_bytes()).unwrap();
    let trusting = TrustAnchors::amd().with_development_root(&processor.root()).unwrap();
    let verified = snp::verify(&report, &chain, &trusting, &Crls::default(), now()).unwrap();
    assert!(matches!(verified.root(), TrustRoot::Development(_)));
    assert_eq!(verified.report().report_data, [5; 64]);
    assert_eq!(verified.report().measurement, digest);
    assert_eq!(verified.report().host_data, [9; 32]);
    let refused = snp::verify(&report, &chain, &TrustAnchors::amd(), &Crls::default(), now()).unwrap_err();
    assert_eq!(refused.explain().code, "RootNotTrusted");
}

#[test]
fn the_independent_crate_sev_accepts_its_evidence_given_its_root() {
    let processor = Processor::start();
    let (_, socket, _) = processor.launch(policy(), [9; 32]);
    let (report, pem) = evidence(&socket, [5; 64]);
    let certificates: Vec<Certificate> = pem
        .split_inclusive("-----END CERTIFICATE-----\n")
        .map(|one| Certificate::from_pem(one.as_bytes()).unwrap())
        .collect();
    let [vek, ask, ark] = certificates.try_into().map_err(|_| "three certificates").unwrap();
    let chain = Chain { ca: ca::Chain { ark, ask }, vek };
    chain.verify().expect("the chain");
    let report = AttestationReport::from_bytes(&report).expect("the report");
    (&chain, &report).verify().expect("the report under the chain");
}

#[test]
fn an_altered_report_is_refused() {
    let processor = Processor::start();
    let (_, socket, _) = processor.launch(policy(), [9; 32]);
    let (mut report, pem) = evidence(&socket, [5; 64]);
    report[0x50] ^= 1;
    let chain = CertChain::from_pem(pem.as_bytes()).unwrap();
    let trusting = TrustAnchors::amd().with_development_root(&processor.root()).unwrap();
    let refused = snp::verify(&report, &chain, &trusting, &Crls::default(), now()).unwrap_err();
    assert!(refused.explain().code.contains("Signature"), "{}", refused.explain().code);
}

#[test]
fn the_root_survives_a_restart_and_the_guests_do_not() {
    let mut processor = Processor::start();
    let (context, socket, _) = processor.launch(policy(), [9; 32]);
    let root = processor.root();
    let (_, before) = evidence(&socket, [5; 64]);
    processor.restart();
    assert_eq!(processor.root(), root);
    assert!(UnixStream::connect(&socket).is_err(), "the guest's socket is gone");
    let answer = processor.host(&HostRequest::Decommission { context });
    assert!(matches!(answer, HostResponse::Error { code: status::INVALID_GUEST, .. }), "{answer:?}");
    let (_, socket, _) = processor.launch(policy(), [9; 32]);
    assert_eq!(evidence(&socket, [5; 64]).1, before, "the same certificates");
}

#[test]
fn the_launch_has_its_order() {
    let processor = Processor::start();
    let (context, socket, _) = processor.launch(policy(), [9; 32]);
    let update =
        HostRequest::LaunchUpdate { context, page_type: PageType::Normal, gpa: 0, data: vec![0; 4096] };
    assert!(matches!(processor.host(&update), HostResponse::Error { code: status::INVALID_GUEST_STATE, .. }));
    let again = HostRequest::LaunchFinish { context, host_data: [0; 32], id_block: None };
    assert!(matches!(processor.host(&again), HostResponse::Error { code: status::INVALID_GUEST_STATE, .. }));
    assert_eq!(processor.host(&HostRequest::Decommission { context }), HostResponse::Decommissioned);
    assert!(UnixStream::connect(&socket).is_err());
}

#[test]
fn policies_that_cannot_be_honoured_are_refused() {
    let processor = Processor::start();
    let refusals = [
        (0, status::INVALID_PARAM),
        (policy() | 1 << 40, status::INVALID_PARAM),
        (policy() & !(1 << 16), status::POLICY_FAILURE),
        (policy() | 1 << 22, status::POLICY_FAILURE),
        (policy() | 1 << 24, status::POLICY_FAILURE),
        (policy() | 0xFF00, status::POLICY_FAILURE),
    ];
    for (policy, expected) in refusals {
        match processor.host(&HostRequest::LaunchStart { policy }) {
            HostResponse::Error { code, .. } => assert_eq!(code, expected, "{policy:#x}"),
            other => panic!("{policy:#x}: {other:?}"),
        }
    }
}

#[test]
fn derived_keys_depend_on_what_is_mixed_in_and_never_exceed_the_guest() {
    let processor = Processor::start();
    let (_, one, _) = processor.launch(policy(), [9; 32]);
    let (_, two, _) = processor.launch(policy() | 1 << 19, [9; 32]);
    let request = |select, guest_svn| {
        GuestRequest::DerivedKey(DerivedKeyRequest {
            root_key_select: 0,
            field_select: FieldSelect(select),
            vmpl: 0,
            guest_svn,
            tcb_version: 0,
            launch_mit_vector: None,
        })
    };
    let key = |socket: &Path, select| match guest(socket, &request(select, 0)) {
        GuestResponse::DerivedKey { key } => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(key(&one, FieldSelect::MEASUREMENT), key(&two, FieldSelect::MEASUREMENT));
    assert_ne!(key(&one, FieldSelect::POLICY), key(&two, FieldSelect::POLICY));
    assert_ne!(key(&one, 0), key(&one, FieldSelect::MEASUREMENT));
    assert!(matches!(
        guest(&one, &request(0, 1)),
        GuestResponse::Error { status: status::INVALID_PARAM, .. }
    ));
}

#[test]
fn a_key_that_is_not_installed_and_a_vmpl_that_does_not_exist_are_refused() {
    let processor = Processor::start();
    let (_, socket, _) = processor.launch(policy(), [9; 32]);
    let ask = |vmpl, key_select| {
        guest(&socket, &GuestRequest::Report(ReportRequest { report_data: [0; 64], vmpl, key_select }))
    };
    assert!(matches!(ask(0, 2), GuestResponse::Error { status: status::INVALID_KEY, .. }));
    assert!(matches!(ask(4, 0), GuestResponse::Error { status: status::INVALID_PARAM, .. }));
    assert!(matches!(ask(3, 1), GuestResponse::Report { .. }));
}

#[test]
fn certificates_are_served_as_by_the_key_distribution_service() {
    let processor = Processor::start();
    let (_, socket, _) = processor.launch(policy(), [9; 32]);
    let (report, pem) = evidence(&socket, [5; 64]);
    let report = snp::Report::parse(&report).unwrap();
    let address = format!(
        "/vcek/v1/Milan/{}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219",
        report.chip_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    let (code, vcek) = processor.get(&address);
    assert_eq!(code, 200);
    let first = pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    assert_eq!(vcek, ca_der(first));
    let (code, chain) = processor.get("/vcek/v1/Milan/cert_chain");
    assert_eq!((code, pem.ends_with(&String::from_utf8(chain).unwrap())), (200, true));
    assert_eq!(processor.get("/vcek/v1/Milan/crl").0, 200);
    assert_eq!(processor.get("/vcek/v1/Genoa/cert_chain").0, 404);
    assert_eq!(processor.get("/vcek/v1/Milan/00ff?blSPL=04").0, 404);
    assert_eq!(
        processor.get(&address.replace("ucodeSPL=219", "ucodeSPL=220")).0,
        404,
        "a TCB above the platform's"
    );
}

#[test]
fn malformed_frames_get_an_error_and_hurt_nobody_else() {
    let processor = Processor::start();
    let mut stream = UnixStream::connect(processor.dir.path().join("host.sock")).unwrap();
    stream.write_all(&[2, 0, 0, 0, 0x77, 0x00]).unwrap();
    let answer = HostResponse::read(&mut stream).unwrap();
    assert!(matches!(answer, HostResponse::Error { code: status::INVALID_COMMAND, .. }), "{answer:?}");
    let mut endless = UnixStream::connect(processor.dir.path().join("host.sock")).unwrap();
    endless.write_all(&[0xFF; 4]).unwrap();
    assert!(HostResponse::read(&mut endless).is_err(), "the connection is closed");
    assert!(matches!(processor.host(&HostRequest::PlatformStatus), HostResponse::Status(_)));
}
