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
mod operations;
mod policies;
mod providers;
mod reference_values;
mod tpm;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use http_service::RouteTable;
use http_service::openapi::Info;
use serde_json::json;
use tower::Layer as _;
use tower::util::MapRequestLayer;

use crate::app::attest::Service;
use error::failure;

/// What the OpenAPI document says of the service.
pub static INFO: Info = Info {
    title: "Casemate attestation service",
    description: "Evidence in, token out. Paths are matched without regard to case.",
    version: env!("CARGO_PKG_VERSION"),
    servers: || {
        json!([
            {"url": "/", "description": "The provider at the root."},
            {
                "url": "/providers/{provider}",
                "description": "Another provider: its policies, signers and keys, and attesting with it.",
                "variables": {"provider": {"default": "default"}},
            },
        ])
    },
};

/// Every route.
pub fn routes() -> RouteTable<Arc<Service>> {
    let files = [
        attest::routes(),
        azure_guest::routes(),
        tpm::routes(),
        attestation_keys::routes(),
        policies::routes(),
        policies::signer_routes(),
        providers::routes(),
        collateral::routes(),
        minimum_tcb::routes(),
        reference_values::routes(),
        boot_references::routes(),
        discovery::routes(),
        operations::routes(),
        log::routes(),
    ];
    RouteTable::new(files.into_iter().flatten().collect())
}

/// The whole service as a router.
pub fn app(service: Arc<Service>) -> Router {
    let table = routes().with_document(&INFO);
    let routes = table.into_router(&service.gate, unknown_path, unknown_method).with_state(service);
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
