//! A launch: the pages go to the secure processor, which answers with a context and the guest's channel to it.
//!
//! What is launched: the firmware that QEMU runs, a page that names paravisor and firmware variables, the VM's first
//! processor states. HOST_DATA is the hash of the launch document as the control plane wrote it.

use std::io::{self, BufWriter, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, SHA384, digest};
use internal_api::paravisor::Failure;
use snp::launch::{CpuModel, LaunchError, LaunchPlan, SNP_ACTIVE, paravisor_page};
use snp::psp::{FrameError, HostRequest, HostResponse, PlatformStatus};

use crate::failure;

/// SMT allowed, bit 17 (must be one), minimum ABI 0.31: no debugging, no migration agent.
const GUEST_POLICY: u64 = 0x3_001F;
/// How long the secure processor may take for one request.
const LIMIT: Duration = Duration::from_secs(30);

/// What a launch depends on.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Their model, as measured.
    pub cpu: CpuModel,
    /// Firmware code.
    pub firmware: PathBuf,
    /// Firmware variables as shipped.
    pub vars_template: PathBuf,
    /// The paravisor program.
    pub paravisor: PathBuf,
    /// The launch document's bytes.
    pub document: Vec<u8>,
}

/// A launch context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Its handle.
    pub context: u64,
    /// Socket of the guest's channel.
    pub guest_socket: PathBuf,
    /// Launch digest in hexadecimal.
    pub digest: String,
}

/// The host's side of a secure processor. Calls block.
pub trait SecureProcessor: Send + Sync {
    /// Measures and finishes a new context. `note` is told of it before it can outlive this connection, so that whoever
    /// comes after a crash can give it back.
    fn launch(&self, launch: &Launch, note: &Note) -> Result<Launched, Box<Failure>>;
    /// Gives a context back. One that is unknown is no error: a reset of the processor loses all.
    fn decommission(&self, context: u64);
    /// What the platform says of itself; the reason in words where it cannot be asked.
    fn status(&self) -> Result<PlatformStatus, String>;
}

/// Writes down a context that was begun.
pub type Note = dyn Fn(u64) -> Result<(), Box<Failure>> + Send;

/// The secure processor behind a Unix socket.
#[derive(Clone, Debug)]
pub struct SocketProcessor {
    socket: PathBuf,
}

/// Why the secure processor did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum ProcessorError {
    #[error("the secure processor at {0} cannot be reached: {1}")]
    Io(PathBuf, io::Error),
    #[error("the secure processor answered with a malformed frame: {0}")]
    Frame(FrameError),
    #[error("the secure processor refused with status {0:#x}: {1}")]
    Refused(u32, String),
    #[error("the secure processor answered another question")]
    Unexpected,
}

impl SocketProcessor {
    /// The processor at `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    fn connect(&self) -> Result<Connection, ProcessorError> {
        let connect = || {
            let stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            Ok(stream)
        };
        let stream = connect().map_err(|error| ProcessorError::Io(self.socket.clone(), error))?;
        Ok(Connection { stream, socket: self.socket.clone() })
    }
}

struct Connection {
    stream: UnixStream,
    socket: PathBuf,
}

impl Connection {
    fn ask(&mut self, request: &HostRequest) -> Result<HostResponse, ProcessorError> {
        let send = || {
            let mut writer = BufWriter::new(&self.stream);
            request.write(&mut writer)?;
            writer.flush()
        };
        send().map_err(|error| ProcessorError::Io(self.socket.clone(), error))?;
        match HostResponse::read(&mut self.stream).map_err(ProcessorError::Frame)? {
            HostResponse::Error { code, message } => Err(ProcessorError::Refused(code, message)),
            response => Ok(response),
        }
    }

    fn load(&mut self, context: u64, launch: &Launch, parts: &Parts) -> Result<Launched, Box<Failure>> {
        let plan = LaunchPlan {
            firmware: &parts.firmware,
            vcpus: launch.vcpus,
            cpu: launch.cpu,
            guest_features: SNP_ACTIVE,
            kernel_hashes: None,
            paravisor_page: Some(paravisor_page(&parts.paravisor, &parts.vars_template)),
        };
        for page in plan.pages().map_err(|error| unlaunchable(&error))? {
            let (page_type, gpa, data) = (page.page_type, page.gpa, page.data.into_owned());
            let request = HostRequest::LaunchUpdate { context, page_type, gpa, data };
            match self.ask(&request).map_err(unavailable)? {
                HostResponse::Updated => {}
                _ => return Err(unavailable(ProcessorError::Unexpected)),
            }
        }
        let host_data = sha256(&launch.document);
        let finish = HostRequest::LaunchFinish { context, host_data, id_block: None };
        match self.ask(&finish).map_err(unavailable)? {
            HostResponse::Finished { launch_digest, guest_socket } => Ok(Launched {
                context,
                guest_socket: guest_socket.into(),
                digest: hex::encode(launch_digest),
            }),
            _ => Err(unavailable(ProcessorError::Unexpected)),
        }
    }
}

impl SecureProcessor for SocketProcessor {
    fn launch(&self, launch: &Launch, note: &Note) -> Result<Launched, Box<Failure>> {
        let parts = Parts::read(launch)?;
        let mut connection = self.connect().map_err(unavailable)?;
        let start = HostRequest::LaunchStart { policy: GUEST_POLICY };
        let context = match connection.ask(&start).map_err(unavailable)? {
            HostResponse::Started { context } => context,
            _ => return Err(unavailable(ProcessorError::Unexpected)),
        };
        note(context)
            .and_then(|()| connection.load(context, launch, &parts))
            .inspect_err(|_| self.decommission(context))
    }

    fn decommission(&self, context: u64) {
        let request = HostRequest::Decommission { context };
        let asked = self.connect().and_then(|mut connection| connection.ask(&request));
        if let Err(error) = asked {
            tracing::info!(context, %error, "a launch context was not given back");
        }
    }

    fn status(&self) -> Result<PlatformStatus, String> {
        match self.connect().and_then(|mut connection| connection.ask(&HostRequest::PlatformStatus)) {
            Ok(HostResponse::Status(status)) => Ok(status),
            Ok(_) => Err(ProcessorError::Unexpected.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The measured files. Read at each launch: what is measured is what is there now.
struct Parts {
    firmware: Vec<u8>,
    vars_template: [u8; 48],
    paravisor: [u8; 48],
}

impl Parts {
    fn read(launch: &Launch) -> Result<Self, Box<Failure>> {
        Ok(Self {
            firmware: read(&launch.firmware)?,
            vars_template: sha384(&read(&launch.vars_template)?),
            paravisor: sha384(&read(&launch.paravisor)?),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Box<Failure>> {
    const CLAIM: &str = "read what is to be launched";
    std::fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let actual = format!("{} is missing", path.display());
            let package = if path.starts_with("/usr/share/OVMF") { "apt install ovmf" } else { "install it" };
            failure::lasting(
                "FileMissing",
                CLAIM,
                "the launch files",
                actual,
                &format!("{package}, then start the VM again"),
            )
        }
        _ => failure::io(CLAIM, path, &error),
    })
}

fn sha384(bytes: &[u8]) -> [u8; 48] {
    digest(&SHA384, bytes).as_ref().try_into().expect("SHA-384 has 48 bytes")
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn unavailable(error: ProcessorError) -> Box<Failure> {
    failure::transient("SecureProcessorUnavailable", "launch the VM", "a launch context", error.to_string())
}

fn unlaunchable(error: &LaunchError) -> Box<Failure> {
    let mut actual = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        actual = format!("{actual}: {error}");
        cause = error.source();
    }
    let remedy = "give the host another firmware, or the VM another size";
    failure::lasting("LaunchImpossible", "launch the VM", "pages that can be measured", actual, remedy)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use snp::launch::{Measurement, PAGE_SIZE};

    use super::*;

    /// A processor that measures what it gets, and stops answering after `requests`.
    fn processor(listener: UnixListener, requests: usize) -> std::thread::JoinHandle<Vec<HostRequest>> {
        std::thread::spawn(move || {
            let (mut seen, mut measurement) = (Vec::new(), Measurement::new());
            for stream in listener.incoming() {
                let mut stream = stream.expect("client");
                while let Ok(request) = HostRequest::read(&mut stream) {
                    if seen.len() == requests {
                        return seen;
                    }
                    let response = match &request {
                        HostRequest::LaunchStart { .. } => HostResponse::Started { context: 7 },
                        HostRequest::LaunchUpdate { page_type, gpa, data, .. } => {
                            measurement.update(*page_type, *gpa, data).expect("pages");
                            HostResponse::Updated
                        }
                        HostRequest::LaunchFinish { .. } => HostResponse::Finished {
                            launch_digest: measurement.clone().finish().0,
                            guest_socket: "/run/guest-7.sock".to_owned(),
                        },
                        _ => HostResponse::Decommissioned,
                    };
                    let last = matches!(request, HostRequest::Decommission { .. });
                    seen.push(request);
                    response.write(&mut stream).expect("answer");
                    if last {
                        return seen;
                    }
                }
            }
            seen
        })
    }

    fn launch(folder: &Path) -> Launch {
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).expect("write");
            path
        };
        Launch {
            vcpus: 2,
            cpu: "EPYC-Milan".parse().expect("a model"),
            firmware: file("code.fd", &vec![0x90; 4 * PAGE_SIZE]),
            vars_template: file("vars.fd", b"vars"),
            paravisor: file("paravisor", b"paravisor"),
            document: b"{}".to_vec(),
        }
    }

    #[test]
    fn the_digest_is_that_of_the_plan_and_host_data_that_of_the_document() {
        let folder = tempfile::tempdir().expect("folder");
        let socket = folder.path().join("psp");
        let server = processor(UnixListener::bind(&socket).expect("bind"), usize::MAX);
        let launch = launch(folder.path());
        let processor = SocketProcessor::new(socket);
        let launched = processor.launch(&launch, &|_| Ok(())).expect("launched");
        processor.decommission(launched.context);
        let firmware = std::fs::read(&launch.firmware).expect("firmware");
        let plan = LaunchPlan {
            firmware: &firmware,
            vcpus: 2,
            cpu: launch.cpu,
            guest_features: SNP_ACTIVE,
            kernel_hashes: None,
            paravisor_page: Some(paravisor_page(&sha384(b"paravisor"), &sha384(b"vars"))),
        };
        assert_eq!(launched.digest, plan.digest().expect("digest").to_string());
        assert_eq!(launched.guest_socket, Path::new("/run/guest-7.sock"));
        let finish = server.join().expect("server").into_iter().rev().nth(1);
        let Some(HostRequest::LaunchFinish { host_data, .. }) = finish else {
            panic!("no finish: {finish:?}")
        };
        assert_eq!(host_data, sha256(b"{}"));
    }

    #[test]
    fn a_processor_that_dies_in_the_middle_is_a_passing_fault() {
        let folder = tempfile::tempdir().expect("folder");
        for requests in 0..4 {
            let socket = folder.path().join(format!("psp-{requests}"));
            let server = processor(UnixListener::bind(&socket).expect("bind"), requests);
            let failure = SocketProcessor::new(socket)
                .launch(&launch(folder.path()), &|_| Ok(()))
                .expect_err("it died");
            assert_eq!((failure.code.as_str(), failure.transient), ("SecureProcessorUnavailable", true));
            server.join().expect("server");
        }
    }

    #[test]
    fn a_missing_processor_is_a_passing_fault() {
        let folder = tempfile::tempdir().expect("folder");
        let processor = SocketProcessor::new(folder.path().join("nobody"));
        assert!(processor.launch(&launch(folder.path()), &|_| Ok(())).expect_err("nobody").transient);
    }

    #[test]
    fn a_missing_firmware_is_named_and_not_retried() {
        let folder = tempfile::tempdir().expect("folder");
        let launch = Launch { firmware: "/usr/share/OVMF/none.fd".into(), ..launch(folder.path()) };
        let failure = SocketProcessor::new(folder.path().join("psp"))
            .launch(&launch, &|_| Ok(()))
            .expect_err("missing");
        assert_eq!((failure.code.as_str(), failure.transient), ("FileMissing", false));
        assert!(failure.remedy.contains("apt install ovmf"));
    }
}
