//! `/health/live`, `/health/ready`, `/metrics`: what an operator's machinery asks for.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use http_service::gate::Cost;
use http_service::health::{self, Readiness};
use http_service::peer::{Peer, is_forwarded};
use http_service::routes::Content;
use http_service::{Access, Operation, Route};

use super::caller::Reader;
use crate::app::access::READER;
use crate::app::attest::Service;

const TAG: &str = "Service";
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let live = Operation::new("getLiveness", TAG, "Whether the process answers.").answers::<Readiness>();
    let ready = Operation::new("getReadiness", TAG, "Whether the service can do its work, check by check.")
        .answers::<Readiness>()
        .answers_with(503, Some(Content::json::<Readiness>()));
    let metrics = Operation::new("getMetrics", TAG, "Metrics, as Prometheus reads them.")
        .access(Access::LoopbackOr(READER))
        .answers_with(200, Some(Content::text("text/plain")));
    vec![
        Route::get("/health/live", health::live, live).cost(Cost::Probe),
        Route::get("/health/ready", show_readiness, ready).cost(Cost::Probe),
        Route::get("/metrics", show_metrics, metrics).cost(Cost::Probe),
    ]
}

/// A caller on this machine whom no proxy has passed on, or one who may read.
struct Scraper;

impl FromRequestParts<Arc<Service>> for Scraper {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Response> {
        let is_local = parts.extensions.get() == Some(&Peer::Loopback);
        if is_local && !is_forwarded(&parts.headers) {
            return Ok(Self);
        }
        Reader::from_request_parts(parts, service).await.map(|_| Self)
    }
}

async fn show_metrics(State(service): State<Arc<Service>>, _: Scraper) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS)], service.gate.metrics().render())
}

async fn show_readiness(State(service): State<Arc<Service>>) -> Response {
    service.last_readiness.or_check(service.readiness(super::now())).await.into_response()
}
