//! The control socket: one JSON request a line, one JSON answer a line.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use internal_api::paravisor::{ControlRequest, ControlResponse};

use super::Message;
use crate::failure::Stop;

/// Longest request.
const MAX_LINE: u64 = 4096;

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
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.by_ref().take(MAX_LINE).read_line(&mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let response = match serde_json::from_str(&line) {
            Ok(request) => ask(request, messages)?,
            Err(error) => ControlResponse::Failed(not_understood(&error).into()),
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        stream.write_all(&text)?;
    }
}

fn ask(request: ControlRequest, messages: &Mutex<Sender<Message>>) -> io::Result<ControlResponse> {
    let (sender, answer) = channel();
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let messages = messages.lock().unwrap_or_else(PoisonError::into_inner).clone();
    messages.send(Message::Control(request, sender)).map_err(|_| io::ErrorKind::BrokenPipe)?;
    answer.recv().map_err(gone)
}

fn not_understood(error: &serde_json::Error) -> Stop {
    Stop::refused(
        "ControlRequestUnknown",
        "control request",
        "one of guestStopped, guestReset, status as a JSON line",
        error.to_string(),
        "unknown requests are errors",
        "use components of the same release",
    )
}
