//! The configuration, and spans that arrive at a collector of the test's own, or at none.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Exported;
use prost::Message as _;

use super::*;

fn problem(text: &str, ratio: f64) -> Option<&'static str> {
    let config = TelemetryConfig {
        otlp_endpoint: Some(text.to_owned()),
        sample_ratio: ratio,
        ..TelemetryConfig::default()
    };
    config.problem().map(|(key, _)| key)
}

#[test]
fn what_makes_no_sense_is_named() {
    assert_eq!(problem("http://127.0.0.1:4318", 1.0), None);
    assert_eq!(problem("https://collector.example/base/", 0.0), None);
    for other in ["127.0.0.1:4318", "grpc://a:4317", "http://u:p@a", "http://a?token=b", ""] {
        assert_eq!(problem(other, 1.0), Some("telemetry.otlp_endpoint"), "{other}");
    }
    for ratio in [-0.1, 1.1, f64::NAN] {
        assert_eq!(problem("http://a", ratio), Some("telemetry.sample_ratio"), "{ratio}");
    }
}

#[test]
fn traces_go_below_the_base() {
    assert_eq!(endpoint("http://a:4318/").as_deref(), Some("http://a:4318/v1/traces"));
    assert_eq!(endpoint("http://a/base").as_deref(), Some("http://a/base/v1/traces"));
}

#[test]
fn without_a_collector_nothing_is_made() {
    let none = provider(&TelemetryConfig::default(), "program", "1").expect("nothing can fail");
    assert!(none.is_none());
}

/// A collector that answers everything with 200 and hands on what it was sent.
fn collector() -> (TelemetryConfig, mpsc::Receiver<(String, ExportTraceServiceRequest)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sent, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok((head, body)) = stream.and_then(|stream| receive(&stream)) else { continue };
            let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP");
            if sent.send((head, request)).is_err() {
                return;
            }
        }
    });
    let config =
        TelemetryConfig { otlp_endpoint: Some(format!("http://{address}")), ..TelemetryConfig::default() };
    (config, received)
}

fn receive(mut stream: &TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        bytes.extend_from_slice(&byte);
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).expect("a length")];
    stream.read_exact(&mut body)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    Ok((head, body))
}

/// A request's span, as `http_service` makes it, and another one.
fn a_request(parent: Option<Place>) -> Option<Place> {
    let span = tracing::info_span!(
        target: "http_service::request",
        "request",
        otel.name = "POST /attest/SevSnpVm",
        otel.kind = "server",
        http.route = "/attest/SevSnpVm",
        http.response.status_code = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    let place = adopt(&span, parent);
    tracing::info_span!("of another crate", token = "a secret").in_scope(|| ());
    span.record("http.response.status_code", 503_i64);
    span.record("otel.status_code", "ERROR");
    place
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Exported> {
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

#[test]
fn a_span_arrives_below_its_parent_and_says_no_more_than_it_should() {
    let (config, received) = collector();
    let (subscriber, telemetry) = subscriber(&config, "casemate-test", "1.2.3").expect("made");
    let parent = ([7; 16], [8; 8], true);
    let place = tracing::subscriber::with_default(subscriber, || {
        let outer = tracing::info_span!(target: "http_service::request", "outer", otel.name = "outer");
        outer.in_scope(|| tracing::info!(token = "a secret", "a line of the log"));
        a_request(Some(parent))
    });
    let place = place.expect("exported");
    telemetry.shut_down();
    let (head, request) = received.recv_timeout(Duration::from_secs(10)).expect("spans arrive");
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let resource = format!("{:?}", request.resource_spans);
    assert!(resource.contains("casemate-test") && resource.contains("1.2.3"), "{resource}");
    assert!(!resource.contains("of another crate") && !resource.contains("a secret"), "{resource}");
    let spans = spans(request);
    let [span, _outer] = spans.as_slice() else { panic!("{} spans", spans.len()) };
    assert_eq!(span.name, "POST /attest/SevSnpVm");
    assert_eq!((span.trace_id.as_slice(), span.parent_span_id.as_slice()), (&[7; 16][..], &[8; 8][..]));
    assert_eq!((place.0, place.1.as_slice(), place.2), ([7; 16], span.span_id.as_slice(), true));
    let status = span.attributes.iter().find(|attribute| attribute.key == "http.response.status_code");
    let status = status.and_then(|attribute| attribute.value.clone()?.value);
    assert_eq!(status, Some(Value::IntValue(503)));
}

#[test]
fn without_a_parent_a_span_begins_its_own_trace() {
    let (config, received) = collector();
    let (subscriber, telemetry) = subscriber(&config, "casemate-test", "1").expect("made");
    let place = tracing::subscriber::with_default(subscriber, || a_request(None)).expect("exported");
    telemetry.shut_down();
    let (_, request) = received.recv_timeout(Duration::from_secs(10)).expect("spans arrive");
    let spans = spans(request);
    assert_eq!(spans[0].trace_id, place.0);
    assert!(spans[0].parent_span_id.is_empty());
}

#[test]
fn a_ratio_of_zero_exports_nothing_whatever_a_client_says() {
    let (config, received) = collector();
    let config = TelemetryConfig { sample_ratio: 0.0, ..config };
    let (subscriber, telemetry) = subscriber(&config, "casemate-test", "1").expect("made");
    let place = tracing::subscriber::with_default(subscriber, || a_request(Some(([7; 16], [8; 8], true))));
    assert!(place.is_none_or(|(_, _, sampled)| !sampled));
    telemetry.shut_down();
    assert!(received.try_recv().is_err());
}

/// One that takes the connection and never answers.
#[test]
fn a_dead_collector_holds_nobody_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let config = TelemetryConfig { otlp_endpoint: Some(endpoint), ..TelemetryConfig::default() };
    let (subscriber, telemetry) = subscriber(&config, "casemate-test", "1").expect("made");
    let started = Instant::now();
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..3 * QUEUE {
            assert!(a_request(None).is_some());
        }
    });
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let started = Instant::now();
    telemetry.shut_down();
    assert!(started.elapsed() < FLUSH_WITHIN + EXPORT_TIMEOUT, "{:?}", started.elapsed());
}
