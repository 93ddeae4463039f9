//! The HTTP surface: Key Vault's paths, one file a resource. Parse, authorise, call `app`, shape the answer.

mod authenticate;
mod deleted;
mod error;
mod keys;
mod log;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::json;
use uuid::Uuid;

use crate::app::AppState;

/// Largest request body, in bytes.
pub const BODY_LIMIT: usize = 1 << 20;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const SERVICE_VERSION: HeaderName = HeaderName::from_static("x-ms-keyvault-service-version");

/// The service's routes.
///
/// Paths are not normalised: Azure's clients send `/keys/{name}/` and `/keys/{name}//release` for the newest version.
pub fn app(state: Arc<AppState>) -> Router {
    let vault = Router::new()
        .route("/keys", get(keys::list))
        .route("/keys/{name}", get(keys::newest).patch(keys::update_newest).delete(keys::delete))
        .route("/keys/{name}/", get(keys::newest).patch(keys::update_newest))
        .route("/keys/{name}/create", post(keys::create))
        .route("/keys/{name}/versions", get(keys::versions))
        .route("/keys/{name}/release", post(keys::release_newest))
        .route("/keys/{name}/wrapkey", post(keys::wrap_newest))
        .route("/keys/{name}/unwrapkey", post(keys::unwrap_newest))
        .route("/keys/{name}//release", post(keys::release_newest))
        .route("/keys/{name}//wrapkey", post(keys::wrap_newest))
        .route("/keys/{name}//unwrapkey", post(keys::unwrap_newest))
        .route("/keys/{name}/{version}", get(keys::version).patch(keys::update_version))
        .route("/keys/{name}/{version}/release", post(keys::release_version))
        .route("/keys/{name}/{version}/wrapkey", post(keys::wrap_version))
        .route("/keys/{name}/{version}/unwrapkey", post(keys::unwrap_version))
        .route("/deletedkeys", get(deleted::list))
        .route("/deletedkeys/{name}", get(deleted::show).delete(deleted::purge))
        .route("/deletedkeys/{name}/recover", post(deleted::recover))
        .route("/log", get(log::entries))
        .method_not_allowed_fallback(error::method_not_allowed)
        .route_layer(middleware::from_fn_with_state(state.clone(), authenticate::authenticate));
    Router::new()
        .route("/health", get(health))
        .merge(vault)
        .fallback(error::no_such_path)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(headers))
        .with_state(state)
}

/// `GET /health`: open to all, says nothing secret.
async fn health(State(state): State<Arc<AppState>>) -> Response {
    let healthy = state.store.is_healthy().await;
    let body = json!({
        "status": if healthy { "ok" } else { "failing" },
        "version": env!("CARGO_PKG_VERSION"),
        "allowDevelopmentRoots": state.allow_development_roots,
        "authorities": state.authorities.names(),
        "masterKeyId": state.master.id().as_str(),
        "releaseSigningRoot": state.signer.root_id(),
    });
    let status =
        if healthy { axum::http::StatusCode::OK } else { axum::http::StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(body)).into_response()
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
