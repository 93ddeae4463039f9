//! The guest's port to the secure processor: requests for reports and derived keys, passed on when they are made at
//! VMPL 1 to 3.
//!
//! On silicon the processor knows at which level its caller runs. The software one takes everything that comes through
//! a context's socket for VMPL 0's, so the boundary is drawn here: VMPL 0 is the paravisor's, and a report of it with
//! REPORT_DATA of the guest's choice would be the paravisor's own evidence, forged.
//!
//! The guest may send anything. What makes no sense ends the connection, which QEMU opens again; a guest that asks
//! without pause is made to wait; one that does not read its answers loses the connection. None of it reaches the
//! paravisor's other threads.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use snp::psp::port::{PortRequest, read_request, write_response};
use snp::psp::{FrameError, GuestRequest, GuestResponse, status};

use crate::failure::Stop;

/// How long the guest may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What answers guest messages: the secure processor.
pub trait GuestMessages {
    /// Passes a request on.
    ///
    /// # Errors
    /// A [`Stop`] when the processor does not answer.
    fn answer(&self, request: &GuestRequest) -> Result<GuestResponse, Stop>;
}

/// Serves one connection after the other: a VM has one QEMU.
///
/// # Errors
/// Those of accepting.
pub fn serve(listener: &UnixListener, processor: &impl GuestMessages) -> io::Result<()> {
    let mut pace = Pace::new(Instant::now());
    for stream in listener.incoming() {
        if let Err(error) = converse(&stream?, processor, &mut pace) {
            tracing::info!(%error, "a connection of the guest's port to the secure processor ended");
        }
    }
    Ok(())
}

fn converse(
    mut stream: &UnixStream,
    processor: &impl GuestMessages,
    pace: &mut Pace,
) -> Result<(), FrameError> {
    stream.set_write_timeout(Some(PATIENCE)).map_err(FrameError::Io)?;
    loop {
        let PortRequest { tag, request } = match read_request(&mut stream) {
            Err(FrameError::Closed) => return Ok(()),
            other => other?,
        };
        hold(pace.next(Instant::now()));
        let response = match request {
            Ok(request) => respond(&request, processor),
            Err(error) => refused(error.to_string()),
        };
        write_response(tag, &response, &mut stream).map_err(FrameError::Io)?;
    }
}

/// Lets the time pass, whatever wakes the thread in between.
fn hold(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

fn respond(request: &GuestRequest, processor: &impl GuestMessages) -> GuestResponse {
    if vmpl(request) == 0 {
        tracing::warn!("the guest asked its secure processor for something of VMPL 0");
        return refused("VMPL 0 is the paravisor's; ask for VMPL 1, 2 or 3".to_owned());
    }
    processor.answer(request).unwrap_or_else(|stop| {
        tracing::warn!(actual = stop.failure().actual, "the secure processor did not answer the guest");
        GuestResponse::Error {
            status: status::RESOURCE_LIMIT,
            message: "no answer of the secure processor".to_owned(),
        }
    })
}

fn vmpl(request: &GuestRequest) -> u32 {
    match request {
        GuestRequest::Report(request) | GuestRequest::ExtendedReport(request) => request.vmpl,
        GuestRequest::DerivedKey(request) => request.vmpl,
    }
}

fn refused(message: String) -> GuestResponse {
    GuestResponse::Error { status: status::INVALID_PARAM, message }
}

/// How fast the guest may ask: [`Pace::BURST`] requests at once, then one each [`Pace::INTERVAL`].
#[derive(Debug)]
pub struct Pace {
    /// When the last allowed request is paid for. Behind the present: there is credit.
    paid: Instant,
}

impl Pace {
    /// Requests without a wait after a pause.
    pub const BURST: u32 = 20;
    /// Between two requests of a guest that asks without pause.
    pub const INTERVAL: Duration = Duration::from_millis(50);

    /// Full credit.
    pub fn new(now: Instant) -> Self {
        Self { paid: now.checked_sub(Self::INTERVAL * Self::BURST).unwrap_or(now) }
    }

    /// How long the request that came now has to wait.
    pub fn next(&mut self, now: Instant) -> Duration {
        let full = now.checked_sub(Self::INTERVAL * Self::BURST).unwrap_or(now);
        self.paid = self.paid.max(full) + Self::INTERVAL;
        self.paid.saturating_duration_since(now)
    }
}
