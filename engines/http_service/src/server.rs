//! The listener's bounds: a connection that says nothing, or says it very slowly, is closed.

use std::time::Duration;

use axum_server::{Address, Server};

use crate::limits::Limits;

/// An HTTP/2 connection is asked for a sign of life this often, and closed if there is none within the same time.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Bounds headers and idle connections. Bodies are bounded by the [gate](crate::gate), handshakes by the acceptor.
pub fn bounded<A: Address, Acceptor>(
    mut server: Server<A, Acceptor>,
    limits: &Limits,
) -> Server<A, Acceptor> {
    let timeout = limits.header_timeout();
    server.http_builder().http1().header_read_timeout(timeout);
    let http2 = &mut server.http_builder().http2();
    http2.keep_alive_interval(timeout.map(|_| KEEP_ALIVE)).keep_alive_timeout(KEEP_ALIVE);
    http2.max_concurrent_streams(MAX_STREAMS);
    server.first_request_timeout(timeout)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Instant;

    use axum::body::Bytes;
    use axum::extract::rejection::BytesRejection;
    use axum::http::StatusCode;

    use super::*;
    use crate::body::unread;
    use crate::{Gate, GateConfig, Metrics, Operation, Route, RouteTable};

    async fn read(body: Result<Bytes, BytesRejection>) -> (StatusCode, String) {
        match body {
            Ok(body) => (StatusCode::OK, body.len().to_string()),
            Err(rejection) => {
                let (status, body) = unread(rejection.status(), &rejection);
                (status, body.error.code)
            }
        }
    }

    /// A server whose headers and bodies may take a second.
    async fn server() -> SocketAddr {
        let limits = Limits { header_timeout_seconds: 1, body_timeout_seconds: 1, ..Limits::default() };
        let config = GateConfig { limits: limits.clone(), request_id: None, adopt: None };
        let gate = Gate::new(config, Metrics::new("test", "1"));
        let route = Route::post("/read", read, Operation::new("read", "tag", "summary"));
        let none = async || StatusCode::NOT_FOUND;
        let router = RouteTable::<()>::new(vec![route]).into_router(&gate, none, none);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("set");
        let address = listener.local_addr().expect("an address");
        let server = bounded(axum_server::from_tcp(listener).expect("a server"), &limits);
        tokio::spawn(server.serve(router.into_make_service_with_connect_info::<SocketAddr>()));
        address
    }

    /// Sends the text, then a byte of `trickle` now and again, and returns all that comes until the server closes.
    async fn talk(address: SocketAddr, text: &'static str, trickle: &'static str) -> (String, Duration) {
        let talk = move || {
            let started = Instant::now();
            let mut stream = TcpStream::connect(address).expect("connected");
            stream.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
            stream.write_all(text.as_bytes()).expect("sent");
            let (mut answer, mut chunk) = (Vec::new(), [0; 1024]);
            let mut trickle = trickle.bytes().cycle();
            while started.elapsed() < Duration::from_secs(20) {
                match stream.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(length) => answer.extend_from_slice(&chunk[..length]),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
                let _ = trickle.next().map(|byte| stream.write(&[byte]));
            }
            (String::from_utf8_lossy(&answer).into_owned(), started.elapsed())
        };
        tokio::task::spawn_blocking(talk).await.expect("talked")
    }

    const SLOW: Duration = Duration::from_secs(15);

    #[tokio::test]
    async fn headers_that_trickle_end_the_connection() {
        let address = server().await;
        for beginning in ["", "POST /read HTTP/1.1\r\nhost: a\r\nx: "] {
            let (answer, took) = talk(address, beginning, "x").await;
            assert!(!answer.contains(" 200 ") && took < SLOW, "{took:?} {answer}");
        }
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_given_up() {
        let head = "POST /read HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n";
        let (answer, took) = talk(server().await, head, "x").await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("RequestTimeout"), "{answer}");
        assert!(took < SLOW, "{took:?}");
    }

    #[tokio::test]
    async fn a_body_that_is_announced_too_long_is_not_waited_for() {
        let head = "POST /read HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1048577\r\n\r\n";
        let (answer, _) = talk(server().await, head, "").await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("1048576 bytes"), "{answer}");
    }
}
