//! The routes. Paths are matched without regard to case; every answer that is not a success is an error envelope.

mod attest;
mod attestation_keys;
mod azure_guest;
mod boot_references;
mod caller;
mod collateral;
mod discovery;
mod error;
mod log;
mod minimum_tcb;
mod policies;
mod providers;
mod reference_values;
mod tpm;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tower::Layer as _;
use tower::util::MapRequestLayer;

use crate::app::attest::Service;
use error::failure;

/// Longest accepted body.
pub const MAX_BODY: usize = 1024 * 1024;

/// The whole service as a router.
pub fn app(service: Arc<Service>) -> Router {
    let routes = Router::new()
        .route("/attest/sevsnpvm", post(attest::sev_snp_vm))
        .route("/attest/azureguest", post(azure_guest::attest))
        .route("/attest/tpm", post(tpm::attest))
        .route("/attest/{type}", post(attest::not_supported))
        .route("/attestationkeycertificates", post(attestation_keys::certify))
        .route("/nonces", post(attest::nonce))
        .route("/policies/{type}", get(policies::show).put(policies::set).post(policies::act))
        .route("/policies/{type}/versions", get(policies::versions))
        .route("/policies/{type}/difference", get(policies::difference))
        .route("/certificates", get(policies::signers))
        .route("/certificates:add", post(policies::add_signer))
        .route("/certificates:remove", post(policies::remove_signer))
        .route("/signingkeys:rotate", post(providers::rotate_signing_key))
        .route("/providers", get(providers::list))
        .route("/providers/{name}", get(providers::show).put(providers::put).delete(providers::delete))
        .merge(collateral::routes())
        .merge(minimum_tcb::routes())
        .merge(reference_values::routes())
        .merge(boot_references::routes())
        .route("/certs", get(discovery::certs))
        .route("/.well-known/openid-configuration", get(discovery::openid_configuration))
        .route("/health", get(discovery::health))
        .route("/log", get(log::entries))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(request_id))
        .with_state(service);
    // The router matches by case, so the path is lowered before it gets there.
    Router::new().fallback_service(MapRequestLayer::new(lower_path).layer(routes))
}

/// Lowers the path; `/providers/{name}/...` becomes `/...` of that provider.
fn lower_path<B>(mut request: axum::http::Request<B>) -> axum::http::Request<B> {
    let lowered = request.uri().path().to_ascii_lowercase();
    let (provider, path) = split_provider(&lowered);
    if let Some(name) = provider {
        request.extensions_mut().insert(caller::ProviderName(name.to_owned()));
    }
    if path != request.uri().path() {
        let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
        if let Ok(uri) = format!("{path}{query}").parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The provider that a path begins with, and the rest; none where the path is about the provider itself.
fn split_provider(path: &str) -> (Option<&str>, &str) {
    let rest = path.strip_prefix("/providers/");
    let split = rest.and_then(|rest| rest.find('/').map(|slash| rest.split_at(slash)));
    match split {
        Some((name, rest)) if rest.len() > 1 => (Some(name), rest),
        _ => (None, path),
    }
}

/// `x-ms-request-id` in the form of a trace context (W3C `traceparent`), as Azure Attestation answers it.
async fn request_id(request: Request, next: Next) -> Response {
    let trace = uuid::Uuid::new_v4().simple().to_string();
    let parent = &uuid::Uuid::new_v4().simple().to_string()[..16];
    let id = format!("00-{trace}-{parent}-00");
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let mut response = next.run(request).await;
    tracing::info!(%method, path, status = response.status().as_u16(), request_id = id);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-ms-request-id", id);
    }
    response
}

async fn unknown_path(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    failure(StatusCode::NOT_FOUND, "NotFound", format!("there is nothing at {path}")).into_response()
}

async fn unknown_method(method: axum::http::Method, uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    let message = format!("{path} does not take {method}");
    failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).into_response()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
