//! The HTTP surface: Key Vault's paths, one file a resource. Parse, authorise, call `app`, shape the answer.

mod backup;
mod caller;
mod deleted;
mod error;
mod generations;
mod keys;
mod log;
mod operations;
mod random;
mod release;
pub mod request;
mod rotation;
mod use_key;
mod vaults;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use http_service::gate::Codes;
use http_service::openapi::Info;
use http_service::{Gate, GateConfig, Metrics, RouteTable};
use serde_json::json;
use uuid::Uuid;

use crate::app::AppState;
use crate::config::Config;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const SERVICE_VERSION: HeaderName = HeaderName::from_static("x-ms-keyvault-service-version");
/// The request's place in its trace (W3C Trace Context level 2); `x-ms-request-id` is a GUID, as Key Vault's clients expect.
const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// Codes of the limits' refusals. Source: Key Vault's 429 is `Throttled`.
const CODES: Codes = Codes { too_many: "Throttled", too_long: "RequestTooLarge", busy: "ServiceUnavailable" };

/// What the OpenAPI document says of the service.
pub static INFO: Info = Info {
    title: "Casemate key service",
    description: "Keys, and their release to machines that proved what they are. Paths are those of Azure Key Vault's \
                  keys; `x-casemate-also-at` lists spellings of a path that mean the newest version.",
    version: env!("CARGO_PKG_VERSION"),
    servers: || json!([{"url": "/", "description": "The vault."}]),
};

/// Every route.
pub fn routes() -> RouteTable<Arc<AppState>> {
    let files = [
        keys::routes(),
        use_key::routes(),
        release::routes(),
        generations::routes(),
        backup::routes(),
        rotation::routes(),
        deleted::routes(),
        random::routes(),
        log::routes(),
        vaults::routes(),
        operations::routes(),
    ];
    RouteTable::new(files.into_iter().flatten().collect())
}

/// What every request passes before its handler.
pub fn gate(config: &Config, metrics: &Arc<Metrics>) -> Arc<Gate> {
    let adopt = config.telemetry.otlp_endpoint.is_some().then_some(telemetry::adopt as _);
    let gate = GateConfig { limits: config.limits.clone(), request_id: Some(TRACE_RESPONSE), adopt };
    Gate::with_codes(gate, CODES, Arc::clone(metrics))
}

/// The whole service as a router.
///
/// Paths are not normalised: Azure's clients send `/keys/{name}/` and `/keys/{name}//release` for the newest version.
pub fn app(state: Arc<AppState>) -> Router {
    let table = routes().with_document(&INFO);
    let routes = table.into_router(&state.gate, error::no_such_path, error::unknown_method);
    routes.with_state(state).layer(middleware::from_fn(headers))
}

/// The service where nobody is at home: whatever is asked, there is no such vault.
pub fn nobody(gate: &Arc<Gate>) -> Router {
    let table = RouteTable::<()>::new(Vec::new());
    table.into_router(gate, error::no_such_vault, error::no_such_vault).layer(middleware::from_fn(headers))
}

/// The headers that every answer of a vault has.
async fn headers(request: Request, next: Next) -> Response {
    let client_id = request.headers().get(&CLIENT_REQUEST_ID).cloned();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let id = Uuid::new_v4().hyphenated().to_string();
    headers.insert(REQUEST_ID, HeaderValue::from_str(&id).expect("a GUID is a header value"));
    if let Some(id) = client_id {
        headers.insert(CLIENT_REQUEST_ID, id);
    }
    headers
        .insert(SERVICE_VERSION, HeaderValue::from_static(concat!("casemate-", env!("CARGO_PKG_VERSION"))));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::EXPIRES, HeaderValue::from_static("-1"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::STRICT_TRANSPORT_SECURITY,
        HeaderValue::from_static("max-age=31536000;includeSubDomains"),
    );
    response
}
