//! The socket: requests as programs send them, and as others do.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser as _;
use expect_test::{Expect, expect};
use guest_agent::agent::Surroundings;
use guest_agent::serve::{answer, converse, run};

/// An agent in surroundings that are not there.
#[derive(clap::Parser)]
struct Agent {
    #[command(flatten)]
    surroundings: Surroundings,
}

fn nowhere() -> Surroundings {
    Agent::parse_from(["agent", "--tpm", "/nonexistent/tpm", "--ca", "/nonexistent/ca"]).surroundings
}

fn exchange(request: &[u8]) -> String {
    let (mut client, server) = UnixStream::pair().unwrap();
    let surroundings = nowhere();
    std::thread::scope(|scope| {
        scope.spawn(|| converse(&server, &mut |request| answer(&surroundings, request)));
        // A server that refuses early may be gone before all is written.
        let _ = client.write_all(request);
        let _ = client.shutdown(Shutdown::Write);
    });
    drop(server);
    let mut text = Vec::new();
    // What was not read by a server that refused resets the connection behind its answer.
    let _ = client.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    format!("{} {body}", head.split(' ').nth(1).unwrap())
}

fn check(request: &str, expected: Expect) {
    expected.assert_eq(&exchange(request.as_bytes()));
}

#[test]
fn requests_are_answered_in_json() {
    check("GET /health HTTP/1.1\r\nHost: x\r\n\r\n", expect![[r#"200 {"status":"ok"}"#]]);
    check(
        "GET /evidence HTTP/1.1\r\n\r\n",
        expect![[
            r#"400 {"error":{"code":"Failed","message":"opening the TPM /nonexistent/tpm: No such file or directory (os error 2)"}}"#
        ]],
    );
    check(
        "POST /token HTTP/1.1\r\nContent-Length: 17\r\n\r\n{\"type\":\"TdxVm\"}\n",
        expect![[r#"400 {"error":{"code":"Failed","message":"no token of type TdxVm"}}"#]],
    );
    check(
        "POST /token HTTP/1.1\r\nContent-Length: 13\r\n\r\n{\"nonse\":\"a\"}",
        expect![[
            r#"400 {"error":{"code":"Failed","message":"the body is not understood: unknown field `nonse`, expected `nonce` or `type` at line 1 column 8"}}"#
        ]],
    );
    check(
        "POST /token HTTP/1.1\r\n\r\n",
        expect![[r#"400 {"error":{"code":"Failed","message":"no attestation service is named"}}"#]],
    );
    check(
        "GET /evidence?userData=zz HTTP/1.1\r\n\r\n",
        expect![[r#"400 {"error":{"code":"Failed","message":"user data is up to 64 bytes in hex"}}"#]],
    );
}

#[test]
fn other_paths_methods_and_bodies_are_refused() {
    for (request, status) in [
        ("GET /token HTTP/1.1\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("nonsense\r\n\r\n", "400"),
        ("POST /token HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", "413"),
        ("POST /token HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "411"),
        ("POST /token HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "411"),
        ("POST /token HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "411"),
        ("POST /token HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", "408"),
        ("GET /health HTTP/1.1\r\n", "408"),
    ] {
        let answer = exchange(request.as_bytes());
        assert!(answer.starts_with(status), "{request:?}: {answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000));
    assert!(exchange(long.as_bytes()).starts_with("413"));
}

/// Connects as soon as somebody listens.
fn wait_for(socket: &Path) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(error) if Instant::now() > deadline => panic!("nobody listens: {error}"),
            Err(_) => std::thread::yield_now(),
        }
    }
}

#[test]
fn the_socket_is_its_owners_and_a_stale_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    std::fs::write(&socket, b"stale").unwrap();
    std::thread::spawn({
        let socket = socket.clone();
        move || run(nowhere(), &socket, None)
    });
    for _ in 0..40 {
        let mut stream = wait_for(&socket);
        stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with(r#"{"status":"ok"}"#), "{text}");
    }
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let error = run(nowhere(), &folder.path().join("b"), Some("no-such-group")).unwrap_err();
    assert!(error.to_string().contains("no-such-group"), "{error}");
}
