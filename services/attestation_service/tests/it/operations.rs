//! What the operator sees and sets: the document of all routes, limits, metrics, health.

use std::net::SocketAddr;

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::Request;
use http_service::{Access, Limits};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::kds::{Answer, Kds, vcek_path};
use crate::support::*;

const HOME: &str = "127.0.0.1:40000";
const AWAY: &str = "192.0.2.1:40000";
const ELSEWHERE: &str = "192.0.2.2:40000";

/// An answer: status, `Retry-After`, body.
struct Told {
    status: u16,
    retry_after: Option<u64>,
    body: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

async fn send(lab: &Lab, request: axum::http::request::Builder, from: &str, body: impl Into<Body>) -> Told {
    let mut request = request.body(body.into()).expect("a request");
    let from: SocketAddr = from.parse().expect("an address");
    request.extensions_mut().insert(ConnectInfo(from));
    let app = attestation_service::http::app(std::sync::Arc::clone(&lab.service));
    let response = app.oneshot(request).await.expect("the router answers");
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let (status, retry_after) = (response.status().as_u16(), retry_after.and_then(|text| text.parse().ok()));
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    Told { status, retry_after, body: String::from_utf8(body.to_vec()).expect("UTF-8") }
}

async fn attest(lab: &Lab, attempt: &Attempt, from: &str) -> Told {
    send(lab, Request::post("/attest/SevSnpVm"), from, attempt.body().to_string()).await
}

/// Sends it until it is refused for its number; on a busy machine a bucket may fill again meanwhile.
async fn until_limited(lab: &Lab, request: impl Fn() -> axum::http::request::Builder, from: &str) -> Told {
    for _ in 0..100 {
        let told = send(lab, request(), from, "{}").await;
        if told.status == 429 {
            return told;
        }
    }
    panic!("{:?} is not limited", request().uri_ref())
}

async fn metrics(lab: &Lab) -> String {
    send(lab, Request::get("/metrics"), HOME, "").await.body
}

/// The value of a series; 0 if it is not there.
async fn metric(lab: &Lab, series: &str) -> u64 {
    let text = metrics(lab).await;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn the_document_tells_every_route() {
    let lab = Lab::new().await;
    let (status, document) = lab.get("/openapi.json").await;
    assert_eq!(status, 200);
    assert_eq!(document["openapi"], "3.1.1");
    // The file is what others generate clients from: `UPDATE_EXPECT=1 cargo test` writes it.
    let mut text = serde_json::to_string_pretty(&document).expect("JSON");
    text.push('\n');
    expect_test::expect_file!["../../../../api/attestation_service.json"].assert_eq(&text);
}

#[test]
fn every_operation_states_its_errors_and_has_a_name_of_its_own() {
    let table = attestation_service::http::routes();
    let silent: Vec<_> = table
        .operations()
        .filter(|operation| !operation.states_its_errors())
        .map(|operation| format!("{} {}", operation.method, operation.path))
        .collect();
    assert!(silent.is_empty(), "without their errors: {silent:?}");
    let mut ids: Vec<_> = table.operations().map(|operation| operation.id()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

/// Each operation, with something in the place of names.
fn operations(wanted: fn(Access) -> bool) -> Vec<(&'static str, String)> {
    let path = |path: &str| path.replace("{attestationType}", "SevSnpVm").replace("{name}", "default");
    let table = attestation_service::http::routes();
    let operations = table.operations().filter(|operation| wanted(operation.access()));
    operations.map(|operation| (operation.method, path(operation.path))).collect()
}

#[tokio::test]
async fn who_may_is_as_the_document_says() {
    let lab = Lab::new().await;
    let needs_role = |access| matches!(access, Access::Role(_) | Access::LoopbackOr(_));
    for (method, path) in operations(needs_role) {
        let told = send(&lab, Request::builder().method(method).uri(&path), AWAY, "{}").await;
        assert_eq!(told.status, 401, "{method} {path}: {}", told.body);
    }
    for (method, path) in operations(|access| access == Access::Open) {
        let told = send(&lab, Request::builder().method(method).uri(&path), AWAY, "{}").await;
        assert!(
            told.status != 401 && told.status != 403 && told.status < 500,
            "{method} {path}: {}",
            told.body
        );
    }
}

#[tokio::test]
async fn every_route_is_limited() {
    let limits = Limits {
        requests_per_second: 1,
        burst: 1,
        costly_requests_per_second: 1,
        costly_burst: 1,
        ..Limits::default()
    };
    let lab = Lab::with(|config| config.limits = limits).await;
    for (number, (method, path)) in operations(|_| true).into_iter().enumerate() {
        let from = format!("198.51.100.{number}:1");
        let request = || Request::builder().method(method).uri(&path).header("authorization", "Bearer guess");
        let first = send(&lab, request(), &from, "{}").await;
        assert_ne!(first.status, 429, "{method} {path}");
        until_limited(&lab, request, &from).await;
    }
}

#[tokio::test]
async fn an_address_that_attests_too_often_is_told_when_to_come_again() {
    let lab = Lab::with(|config| {
        config.limits = Limits { costly_requests_per_second: 1, costly_burst: 2, ..Limits::default() };
    })
    .await;
    assert_eq!(attest(&lab, &Attempt::honest(), AWAY).await.status, 200);
    let refused = until_limited(&lab, || Request::post("/attest/SevSnpVm"), AWAY).await;
    assert_eq!(refused.retry_after, Some(1));
    let denial = refused.json()["error"]["denial"].clone();
    expect_test::expect![[r#"
        code: TooManyRequests
        claim: request rate
        expected: at most 1 in a second, 2 at once, from one address
        actual: more
        rule: [limits] costly_requests_per_second of the service's configuration
        remedy: try again in 1 s (Retry-After)"#]]
    .assert_eq(&shown(&denial));
    assert_eq!(attest(&lab, &Attempt::honest(), ELSEWHERE).await.status, 200, "others are not touched");
    for _ in 0..10 {
        assert_eq!(attest(&lab, &Attempt::honest(), HOME).await.status, 200, "nor this machine");
    }
    assert_eq!(metric(&lab, r#"casemate_http_rate_limited_total{limit="costly"}"#).await, 1);
}

#[tokio::test]
async fn an_administrator_is_charged_by_name() {
    let lab = Lab::with(|config| {
        config.limits = Limits { requests_per_second: 1, burst: 1, ..Limits::default() };
    })
    .await;
    let log = |token: &'static str| Request::get("/log").header("authorization", format!("Bearer {token}"));
    assert_eq!(send(&lab, log(LOG_TOKEN), AWAY, "").await.status, 200);
    // From wherever they come.
    until_limited(&lab, || log(LOG_TOKEN), ELSEWHERE).await;
    assert_eq!(send(&lab, log(ADMIN_TOKEN), AWAY, "").await.status, 200);
}

#[tokio::test]
async fn attesting_is_counted_by_type_and_result_and_denials_by_code() {
    let lab = Lab::new().await;
    assert_eq!(attest(&lab, &Attempt::honest(), HOME).await.status, 200);
    assert_eq!(attest(&lab, &Attempt::with(|report| report.vmpl = 1), HOME).await.status, 400);
    let refused = attest(&lab, &Attempt::of(&STRANGERS), HOME).await;
    let code = refused.json()["error"]["denial"]["code"].as_str().expect("a code").to_owned();
    let attestations =
        |result| format!(r#"casemate_attestations_total{{type="SevSnpVm",result="{result}"}}"#);
    assert_eq!(metric(&lab, &attestations("issued")).await, 1);
    assert_eq!(metric(&lab, &attestations("refused")).await, 2);
    assert_eq!(metric(&lab, &format!(r#"casemate_denials_total{{code="{code}"}}"#)).await, 1);
    let requests = |status| {
        format!(r#"casemate_http_requests_total{{method="POST",route="/attest/SevSnpVm",status="{status}"}}"#)
    };
    assert_eq!((metric(&lab, &requests(200)).await, metric(&lab, &requests(400)).await), (1, 2));
    let text = metrics(&lab).await;
    assert!(!text.contains(VM_ID) && !text.contains("192.0.2"), "{text}");
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_for_readers() {
    let lab = Lab::new().await;
    let get = || Request::get("/metrics");
    assert_eq!(send(&lab, get(), HOME, "").await.status, 200);
    assert_eq!(send(&lab, get(), AWAY, "").await.status, 401);
    let reader = get().header("authorization", format!("Bearer {LOG_TOKEN}"));
    assert_eq!(send(&lab, reader, AWAY, "").await.status, 200);
    let proxied = get().header("x-forwarded-for", "127.0.0.1");
    assert_eq!(
        send(&lab, proxied, HOME, "").await.status,
        401,
        "a proxy on this machine is not this machine"
    );
}

/// Evidence without certificates, of another chip for each number but 0.
fn unknown(chip: u8) -> Attempt {
    let mut attempt = Attempt::with(|report| report.chip_id[0] ^= chip);
    attempt.chain = String::new();
    attempt
}

#[tokio::test]
async fn a_stranger_cannot_make_amd_throttle_this_service() {
    let kds = Kds::start().await;
    let lab = Lab::with(|config| {
        config.kds_urls = vec![kds.url.clone()];
        config.unknown_chips.per_minute_and_address = 2;
    })
    .await;
    for chip in [1, 2] {
        assert_eq!(attest(&lab, &unknown(chip), AWAY).await.status, 503);
    }
    assert_eq!(kds.asked().len(), 2);
    let refused = attest(&lab, &unknown(3), AWAY).await;
    assert_eq!((refused.status, kds.asked().len()), (503, 2), "{}", refused.body);
    assert!(refused.retry_after.is_some_and(|seconds| (1..=31).contains(&seconds)));
    let actual = refused.json()["error"]["denial"]["actual"].as_str().expect("a text").to_owned();
    assert!(actual.contains("at most 2 in a minute") && actual.contains("for one address"), "{actual}");
    assert_eq!(
        attest(&lab, &unknown(1), AWAY).await.status,
        503,
        "what is known to be missing costs nothing"
    );
    let mut honest = Attempt::honest();
    honest.chain = String::new();
    let told = attest(&lab, &honest, ELSEWHERE).await;
    assert_eq!(told.status, 200, "{}", told.body);
    assert!(kds.asked().contains(&vcek_path()));
    assert_eq!(attest(&lab, &honest, AWAY).await.status, 200, "a chip that was seen costs nothing");
    assert_eq!(metric(&lab, "casemate_unknown_chips_limited_total").await, 1);
    let lookups = |found| format!(r#"casemate_collateral_lookups_total{{found="{found}"}}"#);
    assert_eq!(metric(&lab, &lookups("key_distribution_service")).await, 1);
    assert_eq!(metric(&lab, &lookups("memory")).await, 1);
    assert_eq!(metric(&lab, r#"casemate_kds_requests_total{outcome="not_found"}"#).await, 2);
}

#[tokio::test]
async fn requests_to_amd_are_counted_by_their_end() {
    let kds = Kds::start().await;
    let lab = Lab::with(|config| config.kds_urls = vec![kds.url.clone()]).await;
    kds.answer_everything(Some(Answer::retry_after("60")));
    assert_eq!(attest(&lab, &unknown(1), AWAY).await.status, 503);
    assert_eq!(metric(&lab, r#"casemate_kds_requests_total{outcome="throttled"}"#).await, 1);
}

/// The checks that fail.
fn failing(told: &Told) -> Vec<String> {
    let readiness = told.json();
    let checks = readiness["checks"].as_array().expect("checks").iter();
    let failing = checks.filter(|check| check["status"] == "fail");
    failing.map(|check| check["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let lab = Lab::new().await;
    assert_eq!(send(&lab, Request::get("/health/live"), AWAY, "").await.status, 200);
    let ready = send(&lab, Request::get("/health/ready"), AWAY, "").await;
    assert_eq!((ready.status, failing(&ready)), (200, Vec::new()), "{}", ready.body);
    let names: Vec<Value> = ready.json()["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .map(|check| check["name"].clone())
        .collect();
    assert_eq!(names, ["database", "signingKey", "revocationLists"]);

    let lab = Lab::with(|config| config.crl_required = true).await;
    let waiting = send(&lab, Request::get("/health/ready"), AWAY, "").await;
    assert_eq!((waiting.status, failing(&waiting)), (503, vec!["revocationLists".to_owned()]));
    assert!(waiting.body.contains("no root has a current list"), "{}", waiting.body);
    assert_eq!(send(&lab, Request::get("/health/live"), AWAY, "").await.status, 200);
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_not_ready() {
    let lab = Lab::new().await;
    let path = lab.config.data_dir.join("attestation.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("opened");
    sqlx::raw_sql(
        "CREATE TRIGGER full BEFORE INSERT ON readiness BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    )
    .execute(&pool)
    .await
    .expect("made");
    let told = send(&lab, Request::get("/health/ready"), AWAY, "").await;
    assert_eq!((told.status, failing(&told)), (503, vec!["database".to_owned()]), "{}", told.body);
    assert!(told.body.contains("disk full"), "{}", told.body);
}

#[tokio::test]
async fn a_clients_trace_is_continued() {
    let lab = Lab::new().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = Request::get("/certs").header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let request = request.body(Body::empty()).expect("a request");
    let app = attestation_service::http::app(std::sync::Arc::clone(&lab.service));
    let response = app.oneshot(request).await.expect("the router answers");
    let id = response.headers()["x-ms-request-id"].to_str().expect("a text");
    assert!(id.starts_with(&format!("00-{trace}-")) && !id.contains("00f067aa0ba902b7"), "{id}");
}
