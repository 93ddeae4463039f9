//! The gate around a small table of routes.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderValue;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::routes::{Access, Operation, Route, RouteTable};

const HOME: &str = "127.0.0.1:9";
const AWAY: &str = "192.0.2.1:9";
const ELSEWHERE: &str = "192.0.2.2:9";

/// A caller whose token is its name; `bad` is not let in.
struct Named(String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let token = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
        let name = token.map(str::to_owned).filter(|token| token != "bad");
        Admission::settle(parts, name.as_deref()).map_err(|refusal| *refusal)?;
        name.map(Self).ok_or_else(|| StatusCode::UNAUTHORIZED.into_response())
    }
}

async fn waits() {
    std::future::pending::<()>().await;
}

async fn refuses() -> Response {
    let mut response = StatusCode::BAD_REQUEST.into_response();
    response.extensions_mut().insert(DenialCode("NonceReplayed".to_owned()));
    response
}

fn lab(change: impl FnOnce(&mut Limits)) -> (Router, Arc<Metrics>) {
    let operation = |id| Operation::new(id, "tag", "summary");
    let table = RouteTable::<()>::new(vec![
        Route::get("/Open/{name}", async || "open", operation("open")),
        Route::get("/dear", async || "dear", operation("dear")).cost(Cost::Costly),
        Route::get("/mine", async |Named(name): Named| name, operation("mine").access(Access::Role("R"))),
        Route::get("/waits", waits, operation("waits")),
        Route::get("/alive", async || "alive", operation("alive")).cost(Cost::Probe),
        Route::post("/refuses", refuses, operation("refuses")),
    ]);
    let mut limits = Limits { requests_per_second: 1, burst: 2, ..Limits::default() };
    (limits.costly_requests_per_second, limits.costly_burst) = (1, 1);
    change(&mut limits);
    let metrics = Metrics::new("test", "1");
    let request_id = Some(HeaderName::from_static("x-ms-request-id"));
    let gate = Gate::new(GateConfig { limits, request_id, adopt: None }, Arc::clone(&metrics));
    let router =
        table.into_router(&gate, async || StatusCode::NOT_FOUND, async || StatusCode::METHOD_NOT_ALLOWED);
    (router, metrics)
}

async fn send(router: &Router, path: &str, from: &str, token: Option<&str>) -> Response {
    let mut request = Request::get(path).body(Body::empty()).expect("a request");
    let from: SocketAddr = from.parse().expect("an address");
    request.extensions_mut().insert(ConnectInfo(from));
    if let Some(token) = token {
        request.headers_mut().insert("authorization", HeaderValue::from_str(token).expect("a header"));
    }
    router.clone().oneshot(request).await.expect("infallible")
}

async fn status(router: &Router, path: &str, from: &str, token: Option<&str>) -> u16 {
    send(router, path, from, token).await.status().as_u16()
}

#[tokio::test]
async fn an_address_that_comes_too_often_is_told_when_to_come_again() {
    let (router, metrics) = lab(|_| ());
    for _ in 0..2 {
        assert_eq!(status(&router, "/open/a", AWAY, None).await, 200);
    }
    let refused = send(&router, "/open/b", AWAY, None).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &HeaderValue::from(1)));
    let body = to_bytes(refused.into_body(), 10_000).await.expect("a body");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["error"]["code"], "TooManyRequests");
    assert_eq!(body["error"]["denial"]["expected"], "at most 1 in a second, 2 at once, from one address");
    assert_eq!(status(&router, "/open/a", ELSEWHERE, None).await, 200, "others are not touched");
    assert_eq!(status(&router, "/dear", AWAY, None).await, 200, "costly routes have a bucket of their own");
    assert_eq!(status(&router, "/dear", AWAY, None).await, 429);
    let text = metrics.render();
    assert!(text.contains("casemate_http_rate_limited_total{limit=\"usual\"} 1"), "{text}");
    assert!(text.contains("casemate_http_rate_limited_total{limit=\"costly\"} 1"), "{text}");
}

#[tokio::test]
async fn paths_that_do_not_exist_are_charged_too() {
    let (router, _) = lab(|_| ());
    assert_eq!(status(&router, "/nothing", AWAY, None).await, 404);
    assert_eq!(status(&router, "/refuses", AWAY, None).await, 405);
    assert_eq!(status(&router, "/nothing", AWAY, None).await, 429);
}

#[tokio::test]
async fn this_machine_is_not_limited_unless_it_should_be() {
    let (router, _) = lab(|_| ());
    for _ in 0..20 {
        assert_eq!(status(&router, "/dear", HOME, None).await, 200);
    }
    let (router, _) = lab(|limits| limits.limit_loopback = true);
    assert_eq!(status(&router, "/dear", HOME, None).await, 200);
    assert_eq!(status(&router, "/dear", HOME, None).await, 429);
}

#[tokio::test]
async fn who_is_known_is_charged_by_name_and_who_is_not_by_address() {
    let (router, _) = lab(|_| ());
    for from in [AWAY, ELSEWHERE] {
        assert_eq!(status(&router, "/mine", from, Some("alice")).await, 200);
    }
    assert_eq!(status(&router, "/mine", AWAY, Some("alice")).await, 429, "from wherever she comes");
    assert_eq!(status(&router, "/mine", AWAY, Some("bob")).await, 200);
    for token in [None, Some("bad")] {
        assert_eq!(status(&router, "/mine", AWAY, token).await, 401);
    }
    assert_eq!(status(&router, "/mine", AWAY, Some("bad")).await, 429, "guessing is limited");
    assert_eq!(
        status(&router, "/mine", AWAY, Some("bob")).await,
        200,
        "by address, which is not Bob's bucket"
    );
}

#[tokio::test]
async fn slots_are_bounded_and_probes_need_none() {
    let (router, metrics) = lab(|limits| limits.max_concurrent = 1);
    let waiting = tokio::spawn({
        let router = router.clone();
        async move { send(&router, "/waits", HOME, None).await }
    });
    while !metrics.render().contains("casemate_http_requests_in_flight 1") {
        tokio::task::yield_now().await;
    }
    let busy = send(&router, "/open/a", HOME, None).await;
    assert_eq!((busy.status().as_u16(), &busy.headers()["retry-after"]), (503, &HeaderValue::from(1)));
    assert_eq!(status(&router, "/alive", HOME, None).await, 200);
    waiting.abort();
    assert!(waiting.await.expect_err("ended").is_cancelled());
    assert_eq!(status(&router, "/open/a", HOME, None).await, 200, "a client that went away holds no slot");
    assert!(metrics.render().contains("casemate_http_requests_in_flight 0"));
}

#[tokio::test]
async fn nothing_from_outside_becomes_a_series() {
    let (router, metrics) = lab(|limits| *limits = Limits::unlimited());
    let series = |metrics: &Metrics| metrics.render().lines().filter(|line| line.contains('{')).count();
    assert_eq!(status(&router, "/open/x", AWAY, None).await, 200);
    assert_eq!(status(&router, "/none", AWAY, None).await, 404);
    let before = series(&metrics);
    for number in 0..50 {
        assert_eq!(status(&router, &format!("/open/{number}"), AWAY, None).await, 200);
        assert_eq!(status(&router, &format!("/none/{number}?q={number}"), AWAY, None).await, 404);
    }
    assert_eq!(series(&metrics), before);
    let text = metrics.render();
    let counted = "casemate_http_requests_total{method=\"GET\",route=\"/Open/{name}\",status=\"200\"} 51";
    assert!(text.lines().any(|line| line == counted), "{text}");
    let unmatched = "casemate_http_requests_total{method=\"any\",route=\"unmatched\",status=\"404\"} 51";
    assert!(text.lines().any(|line| line == unmatched), "{text}");
}

#[tokio::test]
async fn denials_are_counted_by_their_code() {
    let (router, metrics) = lab(|_| ());
    let mut request = Request::post("/refuses").body(Body::empty()).expect("a request");
    let from: SocketAddr = HOME.parse().expect("an address");
    request.extensions_mut().insert(ConnectInfo(from));
    let response = router.oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(metrics.render().contains("casemate_denials_total{code=\"NonceReplayed\"} 1"));
}

#[tokio::test]
async fn an_answer_names_its_place_in_the_clients_trace() {
    let (router, _) = lab(|_| ());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut ids = Vec::new();
    for parent in [Some(format!("00-{trace}-00f067aa0ba902b7-01")), Some("nonsense".to_owned()), None] {
        let mut request = Request::get("/alive").body(Body::empty()).expect("a request");
        if let Some(parent) = parent {
            request.headers_mut().insert("traceparent", parent.parse().expect("a header"));
        }
        let response = router.clone().oneshot(request).await.expect("infallible");
        ids.push(
            response
                .headers()
                .get("x-ms-request-id")
                .map_or(String::new(), |id| id.to_str().expect("a text").to_owned()),
        );
    }
    assert!(ids[0].starts_with(&format!("00-{trace}-")) && !ids[0].contains("00f067aa0ba902b7"), "{ids:?}");
    assert!(!ids[1].contains(trace) && ids[1].len() == 55 && ids[2].len() == 55, "{ids:?}");
}
