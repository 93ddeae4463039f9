//! A TPM process, provisioned as the platform does it.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use guest_agent::failure::Failure;
use guest_agent::tpm::Tpm;
use vtpm::command::{self, handle, nv, template};
use vtpm::hcl::{HANDLE_AK, NV_INDEX_REPORT};
use zeroize::Zeroizing;

/// One TPM; clones speak to the same.
#[derive(Clone)]
pub struct Swtpm(Rc<RefCell<Process>>);

struct Process {
    child: Child,
    stream: UnixStream,
    _state: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tpm for Swtpm {
    fn send(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let stream = &mut self.0.borrow_mut().stream;
        stream.write_all(command).unwrap();
        let mut header = [0; 10];
        stream.read_exact(&mut header).unwrap();
        let size = u32::from_be_bytes(header[2..6].try_into().unwrap());
        let mut response = header.to_vec();
        response.resize(usize::try_from(size).unwrap(), 0);
        stream.read_exact(&mut response[10..]).unwrap();
        Ok(response.into())
    }
}

impl Swtpm {
    /// A started TPM with an attestation key.
    pub fn provisioned() -> Self {
        let state = tempfile::tempdir().unwrap();
        let path = |name: &str| state.path().join(name).display().to_string();
        let child = Command::new("swtpm")
            .args([
                "socket",
                "--tpm2",
                "--flags",
                "not-need-init",
                "--tpmstate",
                &format!("dir={}", path("")),
            ])
            .args(["--server", &format!("type=unixio,path={}", path("tpm"))])
            .args(["--ctrl", &format!("type=unixio,path={}", path("control"))])
            .stdin(Stdio::null())
            .spawn()
            .expect("swtpm is installed (packages.txt)");
        let deadline = Instant::now() + Duration::from_secs(60);
        let stream = loop {
            match UnixStream::connect(path("tpm")) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => panic!("swtpm does not listen: {error}"),
                Err(_) => std::thread::yield_now(),
            }
        };
        let mut tpm = Self(Rc::new(RefCell::new(Process { child, stream, _state: state })));
        tpm.run(&command::startup_clear());
        let create = command::create_primary(handle::ENDORSEMENT, b"", &template::AK);
        let (ak, _) = command::created_primary(&tpm.send(&create).unwrap()).unwrap();
        tpm.run(&command::evict_control(handle::OWNER, b"", ak, HANDLE_AK));
        tpm.run(&command::flush_context(ak));
        tpm
    }

    /// Runs a command that must succeed.
    pub fn run(&mut self, command: &[u8]) {
        command::success(&self.send(command).unwrap()).unwrap();
    }

    /// Puts a report where the platform puts it.
    pub fn put_report(&mut self, report: &[u8]) {
        let undefine = command::nv_undefine_space(handle::OWNER, b"", NV_INDEX_REPORT);
        let _ = self.send(&undefine).unwrap();
        let size = u16::try_from(report.len()).unwrap();
        self.run(&command::nv_define_space(handle::OWNER, b"", NV_INDEX_REPORT, nv::GUEST_DATA, size));
        for write in command::nv_write_all(handle::OWNER, b"", NV_INDEX_REPORT, report) {
            self.run(&write);
        }
    }
}
