//! Requests to a running paravisor: one JSON line there, one back.

use std::path::Path;
use std::time::Duration;

use internal_api::paravisor::{ControlRequest, ControlResponse, Failure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::failure;

/// Sealing for the next boot reads the boot chain; a stop writes the whole guest state.
const LIMIT: Duration = Duration::from_secs(60);

/// Sends `request` to the paravisor behind `socket`.
pub async fn ask(socket: &Path, request: &ControlRequest) -> Result<(), Box<Failure>> {
    let silent = || fault(format!("no answer within {} s", LIMIT.as_secs()));
    match tokio::time::timeout(LIMIT, exchange(socket, request)).await.map_err(|_| silent())? {
        Ok(ControlResponse::Done) => Ok(()),
        Ok(ControlResponse::Failed(failure)) => Err(Box::new(failure)),
        Err(error) => Err(fault(error.to_string())),
    }
}

async fn exchange(socket: &Path, request: &ControlRequest) -> std::io::Result<ControlResponse> {
    let (reader, mut writer) = UnixStream::connect(socket).await?.into_split();
    let line = serde_json::to_string(request).expect("the request has a JSON form");
    writer.write_all(format!("{line}\n").as_bytes()).await?;
    let answer = BufReader::new(reader).lines().next_line().await?;
    let answer = answer.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_str(&answer)?)
}

fn fault(actual: String) -> Box<Failure> {
    failure::transient("ParavisorSilent", "talk to the paravisor", "an answer on its control socket", actual)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn asked(answer: &'static str) -> Result<(), Box<Failure>> {
        let folder = tempfile::tempdir().expect("folder");
        let socket = folder.path().join("control");
        let listener = UnixListener::bind(&socket).expect("bind");
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("client");
            let (reader, mut writer) = stream.into_split();
            let line = BufReader::new(reader).lines().next_line().await.expect("read").expect("a line");
            writer.write_all(answer.as_bytes()).await.expect("answer");
            line
        });
        let result = ask(&socket, &ControlRequest::GuestReset).await;
        assert_eq!(server.await.expect("server"), "\"guestReset\"");
        result
    }

    #[tokio::test]
    async fn done_is_done() {
        asked("\"done\"\n").await.expect("done");
    }

    #[tokio::test]
    async fn a_refusal_keeps_the_paravisors_words() {
        let failure = failure::lasting("EntryChanged", "c", "e", "a", "r");
        let line = serde_json::to_string(&ControlResponse::Failed(*failure.clone())).expect("JSON");
        let answer = asked(Box::leak(format!("{line}\n").into_boxed_str())).await;
        assert_eq!(answer, Err(failure));
    }

    #[tokio::test]
    async fn a_paravisor_that_is_gone_is_a_passing_fault() {
        let error = ask(Path::new("/nonexistent/control"), &ControlRequest::GuestStopped).await;
        assert!(error.expect_err("nobody there").transient);
        assert!(asked("").await.expect_err("closed").transient);
    }
}
