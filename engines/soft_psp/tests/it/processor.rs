//! A running `soft-pspd` and its callers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use snp::launch::PageType;
use snp::psp::{GuestRequest, GuestResponse, HostRequest, HostResponse};
use snp::{CertChain, GuestPolicy, TrustAnchors, UnixTime};

/// The policy of every test that does not say otherwise.
pub(crate) const POLICY: u64 = GuestPolicy::casemate().0;

/// A state directory whose RSA keys are made already: making them takes seconds.
static KEYS: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let processor = Processor::fresh();
    let kept = tempfile::tempdir().unwrap();
    copy_state(&processor.dir.path().join("state"), kept.path());
    kept
});

fn copy_state(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

pub(crate) struct Processor {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) kds: SocketAddr,
    child: Child,
    /// One connection for all of a host's requests: a launch that is under way goes with it.
    host: Mutex<Option<UnixStream>>,
}

impl Processor {
    /// An installation of the tests' common root.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// The same with more lines of configuration.
    pub(crate) fn with(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_state(KEYS.path(), &dir.path().join("state"));
        Self::in_dir(dir, config)
    }

    /// An installation with a root of its own.
    pub(crate) fn fresh() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), "")
    }

    fn in_dir(dir: tempfile::TempDir, config: &str) -> Self {
        let kds = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        write_config(dir.path(), kds, config);
        let child = spawn(dir.path(), kds);
        Self { dir, kds, child, host: Mutex::default() }
    }

    pub(crate) fn restart(&mut self, config: &str) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        write_config(self.dir.path(), self.kds, config);
        self.child = spawn(self.dir.path(), self.kds);
        self.host.get_mut().unwrap().take();
    }

    /// Asks the process to end and says how it did, and what it wrote to standard output.
    pub(crate) fn terminate(&mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }

    pub(crate) fn host(&self, request: &HostRequest) -> HostResponse {
        let mut host = self.host.lock().unwrap();
        let stream = host.get_or_insert_with(|| self.host_stream());
        request.write(stream).unwrap();
        HostResponse::read(stream).unwrap()
    }

    pub(crate) fn host_stream(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("host.sock")).unwrap()
    }

    /// The code of a refused command.
    pub(crate) fn refusal(&self, request: &HostRequest) -> u32 {
        match self.host(request) {
            HostResponse::Error { code, .. } => code,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(crate) fn begin(&self, policy: u64) -> u64 {
        match self.host(&HostRequest::LaunchStart { policy }) {
            HostResponse::Started { context } => context,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn launch(&self, policy: u64) -> Guest {
        let context = self.begin(policy);
        assert_eq!(self.host(&update(context, 0x1000, 8192)), HostResponse::Updated);
        self.finish(context)
    }

    pub(crate) fn finish(&self, context: u64) -> Guest {
        match self.host(&finish(context)) {
            HostResponse::Finished { launch_digest, guest_socket } => {
                Guest { context, socket: guest_socket.into(), launch_digest }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.kds).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: kds\r\nConnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let status = String::from_utf8_lossy(&bytes[9..12]).parse().unwrap();
        (status, bytes[end..].to_vec())
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        let text = std::fs::read(self.dir.path().join("state/root.pem")).unwrap();
        snp::chain::pem_to_der(&text).unwrap().remove(0)
    }

    /// AMD's roots and this installation's.
    pub(crate) fn anchors(&self) -> TrustAnchors {
        TrustAnchors::amd().with_development_root(&self.root()).unwrap()
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A launched guest.
pub(crate) struct Guest {
    pub(crate) context: u64,
    pub(crate) socket: PathBuf,
    pub(crate) launch_digest: [u8; 48],
}

impl Guest {
    pub(crate) fn ask(&self, request: &GuestRequest) -> GuestResponse {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        request.write(&mut stream).unwrap();
        GuestResponse::read(&mut stream).unwrap()
    }

    /// The status of a refused request.
    pub(crate) fn refusal(&self, request: &GuestRequest) -> u32 {
        match self.ask(request) {
            GuestResponse::Error { status, .. } => status,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// A report and its chain as PEM.
    pub(crate) fn evidence(&self, report_data: [u8; 64]) -> (Vec<u8>, String) {
        match self.ask(&GuestRequest::extended_report(report_data)) {
            GuestResponse::ExtendedReport { report, certificates_pem } => (report, certificates_pem),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn chain(&self) -> CertChain {
        CertChain::from_pem(self.evidence([0; 64]).1.as_bytes()).unwrap()
    }
}

/// Pages of sevens.
pub(crate) fn update(context: u64, gpa: u64, len: usize) -> HostRequest {
    HostRequest::LaunchUpdate { context, page_type: PageType::Normal, gpa, data: vec![7; len] }
}

pub(crate) fn finish(context: u64) -> HostRequest {
    HostRequest::LaunchFinish { context, host_data: [9; 32], id_block: None }
}

pub(crate) fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime(i64::try_from(since.as_secs()).unwrap())
}

/// Writes the configuration of an installation in `dir`.
pub(crate) fn write_config(dir: &Path, kds: SocketAddr, more: &str) {
    let text = format!(
        "state_dir = {:?}\nruntime_dir = {:?}\nhost_socket = {:?}\nkds_listen = \"{kds}\"\n{more}\n",
        dir.join("state"),
        dir.join("run"),
        dir.join("host.sock")
    );
    std::fs::write(dir.join("config.toml"), text).unwrap();
}

pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_soft-pspd"));
    command.arg("--config").arg(dir.join("config.toml"));
    command
}

fn spawn(dir: &Path, kds: SocketAddr) -> Child {
    let child = command(dir).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| UnixStream::connect(dir.join("host.sock")).is_ok() && TcpStream::connect(kds).is_ok());
    child
}

pub(crate) fn wait_for(mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !ready() {
        assert!(Instant::now() < deadline, "waited for two minutes");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
