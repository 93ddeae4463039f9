//! The HTTP surface: Key Vault's paths, one file a resource. Parse, authorise, call `app`, shape the answer.

mod authenticate;
mod backup;
mod deleted;
mod error;
mod keys;
mod log;
mod operations;
mod random;
mod release;
pub mod request;
mod rotation;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
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
    let vault = keys_routes()
        .route("/deletedkeys", get(deleted::list))
        .route("/deletedkeys/{name}", get(deleted::show).delete(deleted::purge))
        .route("/deletedkeys/{name}/recover", post(deleted::recover))
        .route("/rng", post(random::bytes))
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

fn keys_routes() -> Router<Arc<AppState>> {
    let keys = Router::new()
        .route("/keys", get(keys::list))
        .route(
            "/keys/{name}",
            get(keys::show)
                .put(keys::import)
                .patch(keys::update)
                .delete(keys::delete)
                // A key may be named "restore", so that path is no route of its own.
                .post(backup::restore),
        )
        .route("/keys/{name}/", get(keys::show).patch(keys::update))
        .route("/keys/{name}/{version}", get(keys::show).patch(keys::update))
        .route("/keys/{name}/create", post(keys::create))
        .route("/keys/{name}/versions", get(keys::versions))
        .route("/keys/{name}/backup", post(backup::backup))
        .route("/keys/{name}/rotate", post(rotation::rotate))
        .route("/keys/{name}/rotationpolicy", get(rotation::policy).put(rotation::set_policy));
    let operations: [(&str, MethodRouter<Arc<AppState>>); 7] = [
        ("encrypt", post(operations::encrypt)),
        ("decrypt", post(operations::decrypt)),
        ("wrapkey", post(operations::wrap)),
        ("unwrapkey", post(operations::unwrap)),
        ("sign", post(operations::sign)),
        ("verify", post(operations::verify)),
        ("release", post(release::release)),
    ];
    operations.into_iter().fold(keys, |router, (operation, handler)| {
        router
            .route(&format!("/keys/{{name}}/{operation}"), handler.clone())
            .route(&format!("/keys/{{name}}//{operation}"), handler.clone())
            .route(&format!("/keys/{{name}}/{{version}}/{operation}"), handler)
    })
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
