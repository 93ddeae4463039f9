//! The control socket: one JSON request a line, one JSON answer a line.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use internal_api::paravisor::{ControlRequest, ControlResponse};

use super::Message;
use crate::failure::Stop;

/// Longest request.
const MAX_LINE: u64 = 4096;
/// How long an answer may take to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves one connection after the other; requests are carried out in order anyway.
pub(super) fn serve(listener: &UnixListener, messages: &Mutex<Sender<Message>>) -> io::Result<()> {
    for stream in listener.incoming() {
        if let Err(error) = converse(&stream?, messages) {
            tracing::debug!(%error, "a control connection ended");
        }
    }
    Ok(())
}

fn converse(mut stream: &UnixStream, messages: &Mutex<Sender<Message>>) -> io::Result<()> {
    // One asker at a time: none may hold the place without asking.
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.by_ref().take(MAX_LINE).read_line(&mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let (response, _written) = match serde_json::from_str(&line) {
            Ok(request) => {
                let (response, written) = ask(request, messages)?;
                (response, Some(written))
            }
            Err(error) => (ControlResponse::Failed(not_understood(&error).into()), None),
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        stream.write_all(&text)?;
    }
}

/// The answer of the main thread, and what tells it (by being dropped) that the answer was written.
fn ask(
    request: ControlRequest,
    messages: &Mutex<Sender<Message>>,
) -> io::Result<(ControlResponse, Sender<()>)> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let (sender, answer) = channel();
    let (written, seen) = channel();
    let messages = messages.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let asker = Asker { answer: sender, written: seen };
    messages.send(Message::Control(request, asker)).map_err(|_| gone())?;
    Ok((answer.recv().map_err(|_| gone())?, written))
}

/// Who asked, as the main thread sees it.
pub(super) struct Asker {
    answer: Sender<ControlResponse>,
    written: Receiver<()>,
}

impl Asker {
    /// Answers, and returns when the answer was written; the process may end after it. A peer that does not read does not
    /// hold it up, and one that is gone does not matter: what was asked is done all the same.
    pub(super) fn reply(&self, response: ControlResponse) {
        if self.answer.send(response).is_ok() {
            // Ends with an error either way: by the drop of the other end, or by the time that passed.
            let _ = self.written.recv_timeout(PATIENCE);
        }
    }
}

fn not_understood(error: &serde_json::Error) -> Stop {
    Stop::refused(
        "ControlRequestUnknown",
        "control request",
        "one of guestStopped, guestReset, changeKey, status as a JSON line",
        error.to_string(),
        "unknown requests are errors",
        "use components of the same release",
    )
}
