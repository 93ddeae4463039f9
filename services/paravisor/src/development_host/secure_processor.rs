//! The guest channel of the software secure processor: a Unix socket per launch context.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use snp::psp::{GuestRequest, GuestResponse};

use super::guest_port::GuestMessages;
use crate::failure::{Stop, chain};
use crate::flow::world::{ExtendedReport, SecureProcessor};

const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection a request: the processor may be restarted between two.
pub struct GuestChannel {
    socket: PathBuf,
}

impl GuestChannel {
    /// The channel at a socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    fn ask(&self, request: &GuestRequest) -> Result<GuestResponse, Stop> {
        let silent = |error: &dyn std::error::Error| {
            unusable("an answer", &format!("{}: {}", self.socket.display(), chain(error))).transient()
        };
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| silent(&error))?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| silent(&error))?;
        request.write(&mut stream).map_err(|error| silent(&error))?;
        GuestResponse::read(&mut stream).map_err(|error| silent(&error))
    }
}

impl GuestMessages for GuestChannel {
    fn answer(&self, request: &GuestRequest) -> Result<GuestResponse, Stop> {
        self.ask(request)
    }
}

impl SecureProcessor for GuestChannel {
    fn extended_report(&self, report_data: [u8; 64]) -> Result<ExtendedReport, Stop> {
        match self.ask(&GuestRequest::extended_report(report_data))? {
            GuestResponse::ExtendedReport { report, certificates_pem } => {
                Ok(ExtendedReport { report, certificates: certificates_pem })
            }
            GuestResponse::Error { status, message } => {
                Err(unusable("a report", &format!("status {status}: {message}")))
            }
            _ => Err(unusable("a report", "an answer of another kind")),
        }
    }
}

fn unusable(expected: &str, actual: &str) -> Stop {
    Stop::refused(
        "SecureProcessorFailed",
        "secure processor",
        expected,
        actual,
        "nothing starts without a report of the secure processor",
        "start the secure processor; a launch context does not outlive it, so start the VM again",
    )
}
