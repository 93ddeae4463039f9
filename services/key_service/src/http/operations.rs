//! `/health`, `/health/live`, `/health/ready`, `/metrics`: what an operator's machinery asks for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use http_service::gate::Cost;
use http_service::health::{self, Readiness};
use http_service::openapi::any_object;
use http_service::peer::{Peer, is_forwarded};
use http_service::routes::Content;
use http_service::{Access, Operation, Route};
use serde_json::json;

use super::keys::{Routes, Shared};
use crate::app::AppState;
use crate::token::access::On;
use crate::token::caller::Caller;
use crate::token::permission::Permission;

const TAG: &str = "Service";
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes of this file.
pub fn routes() -> Routes {
    let object = || Some(Content { media_type: "application/json", schema: any_object });
    let shown = Operation::new("getHealth", TAG, "What the service is and what it trusts.")
        .answers_with(200, object())
        .answers_with(503, object());
    let live = Operation::new("getLiveness", TAG, "Whether the process answers.").answers::<Readiness>();
    let ready = Operation::new("getReadiness", TAG, "Whether the service can do its work, check by check.")
        .answers::<Readiness>()
        .answers_with(503, Some(Content::json::<Readiness>()));
    let metrics = Operation::new("getMetrics", TAG, "Metrics, as Prometheus reads them.")
        .access(Access::LoopbackOr(Permission::Metrics.least_role()))
        .answers_with(200, Some(Content::text("text/plain")));
    vec![
        Route::get("/health", show_health, shown).cost(Cost::Probe),
        Route::get("/health/live", health::live, live).cost(Cost::Probe),
        Route::get("/health/ready", show_readiness, ready).cost(Cost::Probe),
        Route::get("/metrics", show_metrics, metrics).cost(Cost::Probe),
    ]
}

/// Open to all, says nothing secret.
async fn show_health(State(state): Shared) -> (StatusCode, Json<serde_json::Value>) {
    let healthy = state.store.is_healthy().await;
    let body = json!({
        "status": if healthy { "ok" } else { "failing" },
        "version": env!("CARGO_PKG_VERSION"),
        "allowDevelopmentRoots": state.common.allow_development_roots,
        "authorities": state.common.authorities.names(),
        "masterKeyId": state.master.id().as_str(),
        "releaseSigningRoot": state.signer.root_id(),
    });
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body))
}

/// A caller on this machine whom no proxy has passed on, or one who may read metrics.
struct Scraper;

impl FromRequestParts<Arc<AppState>> for Scraper {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Response> {
        let is_local = parts.extensions.get() == Some(&Peer::Loopback);
        if is_local && !is_forwarded(&parts.headers) {
            return Ok(Self);
        }
        let caller = Caller::from_request_parts(parts, state).await?;
        let permitted = state.permit(&caller, Permission::Metrics, On::Vault("metrics")).await;
        permitted.map(|()| Self).map_err(IntoResponse::into_response)
    }
}

async fn show_metrics(_: Scraper, State(state): Shared) -> impl IntoResponse {
    state.counts.ready(state.common.ready_keys.count());
    ([(CONTENT_TYPE, METRICS)], state.gate.metrics().render())
}

async fn show_readiness(State(state): Shared) -> Response {
    state.last_readiness.or_check(state.readiness()).await.into_response()
}
