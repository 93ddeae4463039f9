//! What the operator sees and sets: the document of all routes, limits, metrics, health.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::request::Builder;
use http_service::Access;
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::support::issuer::{attestation, control_plane};
use crate::support::vault::{Answer, Folder, OFFICER, RELEASE_USER, VM, Vault, platform_conditions};

const AWAY: &str = "192.0.2.1:40000";
const ELSEWHERE: &str = "192.0.2.2:40000";
const HOME: &str = "127.0.0.1:40000";

async fn send(vault: &Vault, request: Builder, from: &str, body: &str) -> Answer {
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    let from: SocketAddr = from.parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(from));
    vault.raw(request).await
}

fn get(path: &str, token: &str) -> Builder {
    Request::get(path).header("authorization", format!("Bearer {token}"))
}

/// Sends it until it is refused for its number; on a busy machine a bucket may fill again meanwhile.
async fn until_limited(vault: &Vault, request: impl Fn() -> Builder, from: &str) -> Answer {
    for _ in 0..100 {
        let answer = send(vault, request(), from, "{}").await;
        if answer.status == 429 {
            return answer;
        }
    }
    panic!("{:?} is not limited", request().uri_ref())
}

async fn limited(usual: &str) -> Vault {
    Folder::new().open_with(|text| format!("{text}\n[limits]\n{usual}\n")).await
}

async fn metrics(vault: &Vault) -> String {
    let answer = send(vault, Request::get("/metrics"), HOME, "").await;
    answer.ok().as_str().unwrap().to_owned()
}

/// The value of a series; 0 if it is not there.
async fn metric(vault: &Vault, series: &str) -> u64 {
    let text = metrics(vault).await;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn the_document_tells_every_route() {
    let vault = Vault::new().await;
    let document = send(&vault, Request::get("/openapi.json"), AWAY, "").await.ok();
    assert_eq!(document["openapi"], "3.1.1");
    // The file is what others generate clients from: `UPDATE_EXPECT=1 cargo test` writes it.
    let mut text = serde_json::to_string_pretty(&document).unwrap();
    text.push('\n');
    expect_test::expect_file!["../../../../api/key_service.json"].assert_eq(&text);
}

#[test]
fn every_operation_states_its_errors_and_has_a_name_of_its_own() {
    let table = key_service::http::routes();
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

/// Each operation at each spelling of its path, with something in the place of names.
fn operations(wanted: fn(Access) -> bool) -> Vec<(&'static str, String)> {
    let table = key_service::http::routes();
    let operations = table.operations().filter(|operation| wanted(operation.access()));
    let spellings = operations.flat_map(|operation| {
        let paths = std::iter::once(operation.path).chain(operation.also.iter().copied());
        paths.map(move |path| (operation.method, path.replace("{name}", "k").replace("{version}", "v")))
    });
    spellings.collect()
}

#[tokio::test]
async fn who_may_is_as_the_document_says() {
    let vault = Vault::new().await;
    let needs_role = |access| matches!(access, Access::Role(_) | Access::LoopbackOr(_));
    for (method, path) in operations(needs_role) {
        let answer = send(&vault, Request::builder().method(method).uri(&path), AWAY, "{}").await;
        assert_eq!(answer.status, 401, "{method} {path}: {}", answer.body);
    }
    let open = operations(|access| access == Access::Open);
    assert_eq!(open.len(), 3);
    for (method, path) in open {
        let answer = send(&vault, Request::builder().method(method).uri(&path), AWAY, "").await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
    }
}

/// The role that the document names is one that the route takes.
#[tokio::test]
async fn the_documents_roles_are_let_in() {
    let vault = Vault::new().await;
    let table = key_service::http::routes();
    for operation in table.operations() {
        let (Access::Role(role) | Access::LoopbackOr(role)) = operation.access() else { continue };
        let path = operation.path.replace("{name}", "k").replace("{version}", "v");
        let request = get(&format!("{path}?api-version=7.4"), &vault.caller(&[role]));
        let answer = send(&vault, request.method(operation.method), AWAY, "{}").await;
        assert!(![401, 403].contains(&answer.status.as_u16()), "{path} {role}: {}", answer.body);
    }
}

#[tokio::test]
async fn every_route_is_limited() {
    let limits = "requests_per_second = 1\nburst = 1\ncostly_requests_per_second = 1\ncostly_burst = 1";
    let vault = limited(limits).await;
    for (number, (method, path)) in operations(|_| true).into_iter().enumerate() {
        let from = format!("198.51.100.{number}:1");
        let request = || Request::builder().method(method).uri(&path).header("authorization", "Bearer guess");
        let first = send(&vault, request(), &from, "{}").await;
        assert_ne!(first.status, 429, "{method} {path}");
        until_limited(&vault, request, &from).await;
    }
}

#[tokio::test]
async fn a_caller_who_comes_too_often_is_told_when_to_come_again() {
    let vault = limited("requests_per_second = 1\nburst = 2").await;
    let token = vault.caller(&[OFFICER]);
    let keys = || get("/keys?api-version=7.4", &token);
    send(&vault, keys(), AWAY, "").await.ok();
    // From wherever they come.
    let refused = until_limited(&vault, keys, ELSEWHERE).await;
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.code(), "Throttled");
    assert!(refused.headers.contains_key("x-ms-keyvault-service-version"), "the vault's headers are there");
    let expected = json!({
        "code": "TooManyRequests", "claim": "request rate",
        "expected": "at most 1 in a second, 2 at once, from one caller", "actual": "more",
        "rule": "[limits] requests_per_second of the service's configuration",
        "remedy": "try again in 1 s (Retry-After)",
    });
    assert_eq!(*refused.denial(), expected);
    let mut other = vault.caller_claims(&[OFFICER]);
    other["appid"] = json!("app-2");
    let other = control_plane().token(&other);
    send(&vault, get("/keys?api-version=7.4", &other), AWAY, "").await.ok();
    for _ in 0..10 {
        send(&vault, keys(), HOME, "").await.ok();
    }
    assert_eq!(metric(&vault, r#"casemate_http_rate_limited_total{limit="usual"}"#).await, 1);
}

#[tokio::test]
async fn the_body_limit_is_the_operators() {
    let vault = limited("max_body_bytes = 64").await;
    let body = json!({"kty": "EC", "tags": {"a": "x".repeat(100)}});
    let answer = vault.officer("POST", "/keys/k/create", &body).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "RequestTooLarge"), "{}", answer.body);
    assert!(answer.body["error"]["message"].as_str().unwrap().contains("64 bytes"), "{}", answer.body);
    // A body whose length nobody stated is cut off where the limit is.
    let chunks = of_unknown_length(body.to_string());
    let request = get("/keys/k/create?api-version=7.4", &vault.caller(&[OFFICER])).method("POST");
    let answer = vault.raw(request.body(chunks).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "RequestTooLarge"), "{}", answer.body);
}

/// A body of unknown length.
fn of_unknown_length(text: String) -> Body {
    struct Chunks(Option<String>);
    impl axum::body::HttpBody for Chunks {
        type Data = axum::body::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
            std::task::Poll::Ready(self.0.take().map(|text| Ok(http_body::Frame::data(text.into()))))
        }
    }
    Body::new(Chunks(Some(text)))
}

#[tokio::test]
async fn operations_are_counted_by_kind_and_result_and_refused_releases_by_code() {
    let vault = Vault::new().await;
    vault.exportable("platform", platform_conditions()).await;
    vault.officer("POST", "/keys/k/create", &json!({"kty": "nonsense"})).await;
    let token = attestation().token(&vault.evidence(0));
    vault.release("/keys/platform/release", &token).await.ok();
    for _ in 0..2 {
        let again = vault.release("/keys/platform/release", &token).await;
        assert_eq!(again.denial()["code"], "TokenReplayed");
    }
    vault.release("/keys/other/release", &token).await;
    vault.release("/keys/platform/release", &attestation().token(&vault.evidence(1))).await.ok();
    for _ in 0..2 {
        let path = format!("/keys/platform/generations/{VM}");
        vault.officer("PUT", &path, &json!({"from": 1, "to": 0})).await;
    }
    let operations = |operation: &str, result: &str| {
        format!(r#"casemate_key_operations_total{{operation="{operation}",result="{result}"}}"#)
    };
    for (operation, result, count) in [
        ("create", "done", 1),
        ("create", "invalid", 1),
        ("release", "done", 2),
        ("release", "refused", 2),
        ("release", "invalid", 1),
        ("reset_generation", "done", 1),
        ("reset_generation", "refused", 1),
        ("sign", "done", 0),
    ] {
        assert_eq!(metric(&vault, &operations(operation, result)).await, count, "{operation} {result}");
    }
    let refusals = r#"casemate_key_release_refusals_total{code="TokenReplayed"}"#;
    assert_eq!(metric(&vault, refusals).await, 2);
    assert_eq!(metric(&vault, r#"casemate_denials_total{code="TokenReplayed"}"#).await, 2);
    let requests =
        r#"casemate_http_requests_total{method="POST",route="/keys/{name}/{version}/release",status="403"}"#;
    assert_eq!(metric(&vault, requests).await, 2);
    let text = metrics(&vault).await;
    let health = vault.get("/health").await.ok();
    for hidden in ["platform", VM, "app-1", &token, health["masterKeyId"].as_str().unwrap()] {
        assert!(!text.contains(hidden), "{hidden} is in the metrics");
    }
    assert!(text.contains("casemate_ready_keys 0"), "{text}");
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_for_who_may_read_them() {
    let vault = Vault::new().await;
    let ask = async |request: Builder, from: &str| send(&vault, request, from, "").await.status.as_u16();
    assert_eq!(ask(Request::get("/metrics"), HOME).await, 200);
    assert_eq!(ask(Request::get("/metrics"), AWAY).await, 401);
    for (role, status) in [("Monitoring Reader", 200), (OFFICER, 200), (RELEASE_USER, 403)] {
        assert_eq!(ask(get("/metrics", &vault.caller(&[role])), AWAY).await, status, "{role}");
    }
    let proxied = Request::get("/metrics").header("x-forwarded-for", "127.0.0.1");
    assert_eq!(ask(proxied, HOME).await, 401, "a proxy on this machine is not this machine");
    let reader = vault.caller(&["Monitoring Reader"]);
    assert_eq!(ask(get("/keys?api-version=7.4", &reader), AWAY).await, 403, "and nothing but metrics");
}

async fn change(vault: &Vault, sql: &'static str) {
    let file = vault.folder.dir.path().join("data/keys.sqlite");
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Status, and name, outcome and reason of each check.
async fn readiness(vault: &Vault) -> (u16, Vec<[Value; 3]>) {
    let answer = send(vault, Request::get("/health/ready"), AWAY, "").await;
    let checks = answer.body["checks"].as_array().unwrap().iter();
    let checks = checks.map(|check| ["name", "status", "reason"].map(|member| check[member].clone()));
    (answer.status.as_u16(), checks.collect())
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let vault = Vault::new().await;
    let live = send(&vault, Request::get("/health/live"), AWAY, "").await.ok();
    assert_eq!(live, json!({"status": "pass", "checks": []}));
    let database = json!(["database", "pass", "it takes writes"]);
    let (status, checks) = readiness(&vault).await;
    assert_eq!(status, 200);
    assert_eq!(json!(checks), json!([database, ["storedKey", "pass", "no key is stored yet"]]));

    // The answer is reused for a moment, so each state is asked of a service of its own.
    let vault = Vault::new().await;
    vault.officer("POST", "/keys/k/create", &json!({"kty": "EC"})).await.ok();
    assert_eq!(readiness(&vault).await.1[1][2], "the newest stored key opens");

    let vault = Vault::new().await;
    vault.officer("POST", "/keys/k/create", &json!({"kty": "EC"})).await.ok();
    change(&vault, "UPDATE key_versions SET sealed = zeroblob(100)").await;
    let (status, checks) = readiness(&vault).await;
    assert_eq!((status, &checks[1][1]), (503, &json!("fail")), "{checks:?}");
    assert_eq!(send(&vault, Request::get("/health/live"), AWAY, "").await.status, 200);

    let vault = Vault::new().await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    change(&vault, full).await;
    let (status, checks) = readiness(&vault).await;
    assert_eq!((status, &checks[0][1]), (503, &json!("fail")));
    assert!(checks[0][2].as_str().unwrap().contains("disk full"), "{checks:?}");
}

#[tokio::test]
async fn a_clients_trace_is_continued_and_each_request_has_its_own_id() {
    let vault = Vault::new().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = || Request::get("/health").header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let (one, two) = (send(&vault, request(), AWAY, "").await, send(&vault, request(), AWAY, "").await);
    let place = one.headers["traceresponse"].to_str().unwrap();
    assert!(place.starts_with(&format!("00-{trace}-")) && !place.contains("00f067aa0ba902b7"), "{place}");
    assert_ne!(one.headers["x-ms-request-id"], two.headers["x-ms-request-id"]);
}
