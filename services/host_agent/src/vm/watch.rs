//! What the paravisor and QEMU said, read from their event files. An agent that was away reads them from the start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use internal_api::paravisor::{Event, Failure, Step};

use crate::qmp::{self, Heard, Shutdown};

/// Reads whole lines of a growing file.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    offset: u64,
}

impl Tail {
    /// The lines that were added since the last call. A line without its end stays for the next call.
    fn lines(&mut self) -> Vec<String> {
        let Ok(mut file) = File::open(&self.path) else { return Vec::new() };
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.offset)).and_then(|_| file.read_to_end(&mut bytes)).is_err() {
            return Vec::new();
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(whole);
        self.offset += whole as u64;
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

/// The paravisor's events so far.
#[derive(Debug)]
pub struct ParavisorWatch {
    tail: Tail,
    /// What they come to.
    pub seen: ParavisorSeen,
}

/// Sum of the paravisor's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParavisorSeen {
    /// The step that is being done.
    pub step: Option<Step>,
    /// Bytes done and in all, of the step that is being done.
    pub progress: Option<(u64, u64)>,
    /// All sockets listen.
    pub ready: bool,
    /// Newest evidence.
    pub evidence: Option<String>,
    /// How often the right volume key was measured.
    pub volumes_opened: usize,
    /// The host's doings that were noticed.
    pub tampering: Vec<String>,
    /// Why the VM must not run.
    pub refused: Option<Failure>,
    /// Stopped cleanly.
    pub stopped: bool,
    /// The key that the guest state is under.
    pub key_in_use: Option<String>,
    /// The key that was asked for last and is not used, and why.
    pub key_not_changed: Option<(String, Failure)>,
    /// Why the VM may no longer have its key.
    pub key_revoked: Option<Failure>,
    /// Milliseconds by step.
    pub millis: BTreeMap<Step, u64>,
}

impl ParavisorWatch {
    /// Reads `path` from its start.
    pub fn new(path: PathBuf) -> Self {
        Self { tail: Tail { path, offset: 0 }, seen: ParavisorSeen::default() }
    }

    /// Takes in what is new.
    pub fn poll(&mut self) {
        for line in self.tail.lines() {
            match serde_json::from_str(&line) {
                Ok(event) => self.seen.take(event),
                Err(error) => tracing::warn!(line, %error, "the paravisor said something that is no event"),
            }
        }
    }
}

impl ParavisorSeen {
    fn take(&mut self, event: Event) {
        match event {
            Event::Step { step } => (self.step, self.progress) = (Some(step), None),
            Event::StepDone { step, millis } => {
                *self.millis.entry(step).or_default() += millis;
                (self.step, self.progress) = (None, None);
            }
            Event::Progress { done, total } => self.progress = Some((done, total)),
            Event::Ready { evidence, .. } => (self.ready, self.evidence) = (true, Some(evidence)),
            Event::Evidence { evidence } => self.evidence = Some(evidence),
            Event::KeyInUse { key_id } => {
                (self.key_in_use, self.key_not_changed) = (Some(key_id), None);
            }
            Event::KeyNotChanged { key_id, failure } => {
                tracing::warn!(key_id, code = failure.code, "the guest state stays under its key");
                self.key_not_changed = Some((key_id, failure));
            }
            Event::KeyCheck { failure } => self.key_revoked = failure,
            Event::VolumeOpened => self.volumes_opened += 1,
            Event::TamperingSeen { what } => {
                tracing::warn!(what, "the paravisor saw tampering");
                self.tampering.push(what);
            }
            Event::Refused { failure } => self.refused = Some(failure),
            Event::Stopped { .. } => self.stopped = true,
        }
    }
}

/// QEMU's events so far.
#[derive(Debug)]
pub struct QemuWatch {
    tail: Tail,
    /// It runs, and tells of events from now on.
    pub heard: bool,
    /// Why it ended, or is about to.
    pub shutdown: Option<Shutdown>,
}

impl QemuWatch {
    /// Reads `path` from its start.
    pub fn new(path: PathBuf) -> Self {
        Self { tail: Tail { path, offset: 0 }, heard: false, shutdown: None }
    }

    /// Takes in what is new. Of several reasons the first counts: `quit` after a guest's power-off is no reason.
    pub fn poll(&mut self) {
        for line in self.tail.lines() {
            match qmp::hear(&line) {
                Heard::Accepted => self.heard = true,
                Heard::Shutdown(reason) => self.shutdown = self.shutdown.or(Some(reason)),
                Heard::Other => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_line_without_its_end_waits_for_it() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        let mut watch = ParavisorWatch::new(file.path().to_owned());
        write!(file, "{{\"event\":\"volumeOpened\"}}\n{{\"event\":\"vol").expect("write");
        watch.poll();
        assert_eq!(watch.seen.volumes_opened, 1);
        writeln!(file, "umeOpened\"}}").expect("write");
        watch.poll();
        watch.poll();
        assert_eq!(watch.seen.volumes_opened, 2);
    }

    #[test]
    fn events_add_up() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        for line in [
            r#"{"event":"step","step":"encryptDisk"}"#,
            r#"{"event":"progress","done":5,"total":10}"#,
            r#"{"event":"stepDone","step":"seal","millis":3}"#,
            r#"{"event":"ready","generation":1,"evidence":"{}"}"#,
            "not an event",
            r#"{"event":"evidence","evidence":"{\"a\":1}"}"#,
            r#"{"event":"keyInUse","keyId":"https://kv/keys/k/1"}"#,
        ] {
            writeln!(file, "{line}").expect("write");
        }
        let mut watch = ParavisorWatch::new(file.path().to_owned());
        watch.poll();
        assert!(watch.seen.ready);
        assert_eq!(watch.seen.evidence.as_deref(), Some("{\"a\":1}"));
        assert_eq!(watch.seen.millis[&Step::Seal], 3);
        assert_eq!(watch.seen.key_in_use.as_deref(), Some("https://kv/keys/k/1"));
    }

    #[test]
    fn the_first_reason_of_an_end_counts() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        writeln!(file, r#"{{"return":{{}}}}"#).expect("write");
        for reason in ["guest-shutdown", "host-qmp-quit"] {
            writeln!(file, r#"{{"event":"SHUTDOWN","data":{{"reason":"{reason}"}}}}"#).expect("write");
        }
        let mut watch = QemuWatch::new(file.path().to_owned());
        watch.poll();
        assert!(watch.heard);
        assert_eq!(watch.shutdown, Some(Shutdown::GuestOff));
    }
}
