//! A client of QEMU's machine protocol (QMP): one command over one connection, and the reader of the event file.
//!
//! Events do not come over this connection. QEMU writes them to a file of its own (see [`crate::qemu`]), so that an agent
//! that was away still learns why a guest has ended.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

const LIMIT: Duration = Duration::from_secs(10);

/// What went wrong with a command.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// No connection, or it broke.
    #[error("the connection to QEMU failed")]
    Io(#[from] std::io::Error),
    /// Something that is no QMP.
    #[error("QEMU said something that is no QMP")]
    Malformed(#[from] serde_json::Error),
    /// QEMU closed the connection before it answered.
    #[error("QEMU closed the connection")]
    Closed,
    /// No answer in time.
    #[error("QEMU did not answer within {} s", LIMIT.as_secs())]
    Silent,
    /// The command was refused.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        reason: String,
    },
}

/// A connection that has negotiated its capabilities.
pub struct Qmp {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

impl Qmp {
    /// Connects to `socket`.
    pub async fn connect(socket: &Path) -> Result<Self, QmpError> {
        let connect = async {
            let (reader, writer) = UnixStream::connect(socket).await?.into_split();
            let mut qmp = Self { lines: BufReader::new(reader).lines(), writer };
            qmp.line().await?;
            qmp.exchange("qmp_capabilities").await?;
            Ok(qmp)
        };
        tokio::time::timeout(LIMIT, connect).await.unwrap_or(Err(QmpError::Silent))
    }

    /// Runs a command without arguments and returns its value.
    pub async fn execute(&mut self, command: &str) -> Result<Value, QmpError> {
        tokio::time::timeout(LIMIT, self.exchange(command)).await.unwrap_or(Err(QmpError::Silent))
    }

    async fn exchange(&mut self, command: &str) -> Result<Value, QmpError> {
        let request = format!("{}\n", json!({ "execute": command }));
        self.writer.write_all(request.as_bytes()).await?;
        loop {
            let message: Message = serde_json::from_str(&self.line().await?)?;
            if let Some(refusal) = message.error {
                return Err(QmpError::Refused { command: command.to_owned(), reason: refusal.desc });
            }
            // Events come between: they have neither value nor error.
            if let Some(value) = message.value {
                return Ok(value);
            }
        }
    }

    async fn line(&mut self) -> Result<String, QmpError> {
        self.lines.next_line().await?.ok_or(QmpError::Closed)
    }
}

/// One command on a connection of its own.
pub async fn command(socket: &Path, command: &str) -> Result<Value, QmpError> {
    Qmp::connect(socket).await?.execute(command).await
}

/// Why QEMU ended, by its own event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// The guest switched itself off.
    GuestOff,
    /// The guest asked for a reset, which ends QEMU here.
    GuestReset,
    /// The guest crashed.
    GuestPanic,
    /// Somebody on the host ended it.
    Host,
}

/// What one line of the event file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The capabilities command was accepted: QEMU runs, and tells of events from now on.
    Accepted,
    /// It is about to end.
    Shutdown(Shutdown),
    /// Anything else.
    Other,
}

/// Reads one line of the event file.
pub fn hear(line: &str) -> Heard {
    let Ok(value) = serde_json::from_str::<Value>(line) else { return Heard::Other };
    if value.get("return").is_some() {
        return Heard::Accepted;
    }
    if value.get("event").and_then(Value::as_str) != Some("SHUTDOWN") {
        return Heard::Other;
    }
    Heard::Shutdown(match value.pointer("/data/reason").and_then(Value::as_str) {
        Some("guest-shutdown") => Shutdown::GuestOff,
        Some("guest-reset" | "subsystem-reset") => Shutdown::GuestReset,
        Some("guest-panic") => Shutdown::GuestPanic,
        _ => Shutdown::Host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each line that it gets with the next of `answers`.
    async fn server(listener: tokio::net::UnixListener, answers: Vec<&'static str>) {
        let (stream, _) = listener.accept().await.expect("client");
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        writer
            .write_all(b"{\"QMP\":{\"version\":{},\"capabilities\":[\"oob\"]}}\r\n")
            .await
            .expect("greeting");
        for answer in answers {
            lines.next_line().await.expect("read").expect("a command");
            writer.write_all(answer.as_bytes()).await.expect("answer");
        }
    }

    async fn run(answers: Vec<&'static str>) -> Result<Value, QmpError> {
        let folder = tempfile::tempdir().expect("folder");
        let socket = folder.path().join("qmp");
        let listener = tokio::net::UnixListener::bind(&socket).expect("bind");
        let server = tokio::spawn(server(listener, answers));
        let result = command(&socket, "query-status").await;
        server.await.expect("server");
        result
    }

    #[tokio::test]
    async fn events_between_command_and_answer_are_passed_over() {
        let answer = "{\"event\":\"RTC_CHANGE\",\"data\":{},\"timestamp\":{}}\r\n{\"return\":{\"status\":\"running\"}}\r\n";
        let value = run(vec!["{\"return\":{}}\r\n", answer]).await.expect("value");
        assert_eq!(value["status"], "running");
    }

    #[tokio::test]
    async fn a_refused_command_gives_qemus_words() {
        let refusal = "{\"error\":{\"class\":\"GenericError\",\"desc\":\"not now\"}}\r\n";
        let error = run(vec!["{\"return\":{}}\r\n", refusal]).await.expect_err("refused");
        assert_eq!(error.to_string(), "QEMU refused `query-status`: not now");
    }

    #[tokio::test]
    async fn a_closed_connection_is_an_error() {
        assert!(matches!(run(vec!["{\"return\":{}}\r\n", ""]).await, Err(QmpError::Closed)));
    }

    #[test]
    fn shutdown_reasons_are_told_apart() {
        let line = |reason| format!(r#"{{"event":"SHUTDOWN","data":{{"guest":true,"reason":"{reason}"}}}}"#);
        assert_eq!(hear(&line("guest-shutdown")), Heard::Shutdown(Shutdown::GuestOff));
        assert_eq!(hear(&line("guest-reset")), Heard::Shutdown(Shutdown::GuestReset));
        assert_eq!(hear(&line("guest-panic")), Heard::Shutdown(Shutdown::GuestPanic));
        assert_eq!(hear(&line("host-qmp-quit")), Heard::Shutdown(Shutdown::Host));
        assert_eq!(hear(r#"{"return":{}}"#), Heard::Accepted);
        assert_eq!(hear(r#"{"event":"RTC_CHANGE"}"#), Heard::Other);
        assert_eq!(hear(r#"{"QMP":{}}"#), Heard::Other);
        assert_eq!(hear("{\"QMP"), Heard::Other);
    }
}
