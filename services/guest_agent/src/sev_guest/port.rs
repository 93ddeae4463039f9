//! The port to the host: one request, one answer, and the port is closed again. What the guest did not read until then
//! is dropped by the kernel, and what comes later bears another tag.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use snp::psp::port::{read_response, write_request};
use snp::psp::{FrameError, GuestRequest, GuestResponse};

use super::SecureProcessor;

/// How long an answer may take. The host makes a guest that asks without pause wait.
const LIMIT: Duration = Duration::from_secs(20);

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The port is not there, in use, or nobody is at its other end.
    #[error("talking to the host through {}", path.display())]
    Io {
        /// The port.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer makes no sense.
    #[error("reading the host's answer from {}", path.display())]
    Answer {
        /// The port.
        path: PathBuf,
        /// What is wrong.
        source: FrameError,
    },
}

/// The port of this VM.
#[derive(Debug)]
pub struct Port {
    path: PathBuf,
    tag: u64,
}

impl Port {
    /// The port at a device node. Tags go on from `first_tag`, which should be random.
    pub fn new(path: &Path, first_tag: u64) -> Self {
        Self { path: path.to_owned(), tag: first_tag }
    }
}

impl SecureProcessor for Port {
    fn ask(&mut self, request: &GuestRequest) -> Result<GuestResponse, PortError> {
        self.tag = self.tag.wrapping_add(1);
        let io = |source| PortError::Io { path: self.path.clone(), source };
        let mut open = OpenOptions::new();
        open.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let file = open.open(&self.path).map_err(io)?;
        let mut stream = Timed { file, deadline: Instant::now() + LIMIT };
        write_request(self.tag, request, &mut stream).map_err(io)?;
        loop {
            let answer = read_response(&mut stream);
            let (tag, response) =
                answer.map_err(|source| PortError::Answer { path: self.path.clone(), source })?;
            if tag == self.tag {
                return Ok(response);
            }
        }
    }
}

/// A file without blocking reads and writes, that waits until the deadline.
struct Timed {
    file: File,
    deadline: Instant,
}

impl Timed {
    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let mut waiting = [PollFd::new(self.file.as_fd(), flags)];
        let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut waiting, limit)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::POLLIN)?;
        self.file.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::POLLOUT)?;
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
