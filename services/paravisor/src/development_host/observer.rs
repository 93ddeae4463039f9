//! Events as lines on standard output.

use std::io::{self, Write as _};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};

use internal_api::paravisor::{Event, Failure};

use super::Message;
use crate::flow::world::Observer;

/// Writes each event as one line, whole and at once.
pub(super) struct LineWriter {
    messages: Mutex<Sender<Message>>,
}

impl LineWriter {
    pub(super) fn new(messages: Sender<Message>) -> Self {
        Self { messages: Mutex::new(messages) }
    }

    fn tell(&self, message: Message) {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        // The main thread is gone only when the process ends anyway.
        let _ = messages.send(message);
    }
}

impl Observer for LineWriter {
    fn event(&self, event: Event) {
        let mut line = match serde_json::to_vec(&event) {
            Ok(line) => line,
            Err(error) => return tracing::error!(%error, "an event has no JSON form"),
        };
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        if let Err(error) = stdout.write_all(&line).and_then(|()| stdout.flush()) {
            tracing::error!(%error, "an event could not be written");
        }
    }

    fn refused(&self, failure: Failure) {
        tracing::error!(code = failure.code, claim = failure.claim, actual = failure.actual, "refused");
        self.event(Event::Refused { failure });
        self.tell(Message::Refused);
    }

    fn boot_chain_changed(&self) {
        self.tell(Message::BootChainChanged);
    }
}
