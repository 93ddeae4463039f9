//! The program: its arguments, its configuration file, its signals.

use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::installation::{Installation, wait_for};

fn command(installation: &Installation) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-control-plane"));
    command.arg("--config").arg(installation.path("control-plane.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn with_config(change: impl FnOnce(String) -> String) -> Output {
    let installation = Installation::stopped().await;
    let path = installation.path("control-plane.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, change(text)).unwrap();
    command(&installation).output().await.unwrap()
}

#[tokio::test]
async fn a_configuration_that_cannot_be_meant_is_refused_by_the_keys_name() {
    for (from, to, word) in [
        ("region = \"local\"", "regoin = \"local\"", "regoin"),
        ("region = \"local\"", "region = \"Local Region\"", "region"),
        ("public_url = \"https:", "public_url = \"http:", "public_url"),
        ("home_tenant = \"1", "home_tenant = \"9", "home_tenant"),
        ("secret_sha256 = \"", "secret_sha256 = \"zz", "secret_sha256"),
        ("access = \"read\"", "access = \"all\"", "access"),
        ("client_ca = \"", "client_ca = \"/nowhere", "client_ca"),
    ] {
        let output = with_config(|text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        })
        .await;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{to}: {log}");
        let named = log.contains(word) || (word == "client_ca" && log.contains("/nowhere"));
        assert!(named && output.stdout.is_empty(), "{to}: {log}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_and_a_newer_database_are_said_at_start() {
    let installation = Installation::new().await;
    let output = command(&installation).output().await.unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(log.contains(&format!("127.0.0.1:{}", installation.config.listen.port())), "{log}");
    let mut installation = Installation::new().await;
    installation.kill().await;
    let path = installation.path("data/control-plane.sqlite");
    let bytes = std::fs::read(&path).unwrap();
    let mut newer = bytes.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&path, newer).unwrap();
    let output = command(&installation).output().await.unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("schema version 99"), "{log}");
}

#[tokio::test]
async fn sigterm_ends_it_cleanly_and_it_prints_nothing() {
    let installation = Installation::stopped().await;
    let child = command(&installation).spawn().unwrap();
    let nobody = installation.bare(None);
    wait_for("the program to listen", || async {
        let port = installation.config.listen.port();
        let open = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        open.then_some(())
    })
    .await;
    assert_eq!(nobody.send(reqwest::Method::GET, "/health", None).await.status, 200);
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
}
