//! `GET /health`.

use axum::response::Response;
use serde_json::json;

use super::{App, Call, reply};
use crate::app::now_millis;
use crate::app::observation::is_recent;
use crate::app::refusal::Refusal;

/// Status, version, and what this installation trusts.
pub async fn get(app: App, _call: Call) -> Result<Response, Refusal> {
    let hosts = app.store.hosts().await?;
    let (now, timeout) = (now_millis(), app.config.hosts.timeout_seconds);
    let reporting = hosts.iter().filter(|host| is_recent(host, now, timeout)).count();
    Ok(reply::ok(&json!({
        "status": "ok",
        "service": "casemate-control-plane",
        "version": env!("CARGO_PKG_VERSION"),
        "region": app.config.region,
        "allowDevelopmentRoots": app.config.allow_development_roots,
        "hosts": {"known": hosts.len(), "reporting": reporting},
    })))
}
