//! The interface for hosts: `POST /internal/hosts/{name}/sync`, over mutual TLS.
//!
//! A host may speak for itself only: its name in the path must be a name of its certificate.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use axum_server::tls::TlsInfo;
use internal_api::host::{SyncRequest, SyncResponse};
use serde_json::json;
use tokio::time::Instant;

use super::{App, reply, tls};
use crate::app::observation;
use crate::app::refusal::{Kind, Refusal};

/// Largest report: evidence of many VMs at once.
const MAX_REPORT: usize = 16 << 20;
/// Longest wait for news; a third of the time after which a silent host counts as gone, if that is less.
const LONGEST_WAIT: u32 = 30;

/// The host interface.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/internal/hosts/{name}/sync", post(sync))
        .route("/health", get(health))
        .with_state(app)
}

async fn health() -> Response {
    reply::ok(
        &json!({"status": "ok", "service": "casemate-control-plane", "version": env!("CARGO_PKG_VERSION")}),
    )
}

async fn sync(
    State(app): State<App>,
    Extension(tls): Extension<Arc<TlsInfo>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    match exchange(&app, &tls, &name, request.into_body()).await {
        Ok(answer) => reply::json(StatusCode::OK, &answer),
        Err(refusal) => reply::refusal(&app, &refusal),
    }
}

async fn exchange(app: &App, tls: &TlsInfo, name: &str, body: Body) -> Result<serde_json::Value, Refusal> {
    if !tls::names(tls).iter().any(|found| found == name) {
        let message = format!("The client certificate does not name the host '{name}'.");
        return Err(Refusal::new(Kind::Forbidden, "HostNameMismatch", message));
    }
    let body = axum::body::to_bytes(body, MAX_REPORT).await.map_err(|_| super::too_large(MAX_REPORT))?;
    let request: SyncRequest = serde_json::from_slice(&body).map_err(|error| {
        Refusal::new(
            Kind::BadRequest,
            "InvalidRequestContent",
            format!("The report cannot be read: {error}."),
        )
    })?;
    let mut changes = app.store.changes();
    observation::record(app, name, &request).await?;
    let longest = LONGEST_WAIT.min(app.config.hosts.timeout_seconds / 3).max(1);
    let deadline = Instant::now() + Duration::from_secs(request.wait_seconds.min(longest).into());
    loop {
        changes.mark_unchanged();
        let (revision, assignments) = observation::assignments(app, name).await?;
        if revision != request.known_revision || Instant::now() >= deadline {
            let answer = SyncResponse { revision, assignments };
            return Ok(serde_json::to_value(answer).expect("the type has only string keys"));
        }
        // The end of the time is as good as news: then the host gets fresh tokens.
        let _ = tokio::time::timeout_at(deadline, changes.changed()).await;
    }
}
