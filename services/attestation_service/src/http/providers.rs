//! `/providers` and `/providers/{name}`: the instances of this service; `/signingKeys:rotate` for one of them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use http_service::routes::Content;
use http_service::{Access, Operation, Route};
use public_api::attestation_policy::{ProviderSettings, ProviderView};
use public_api::jwk::JwkSet;

use super::caller::{Contributor, Of, ProviderContributor, Reader};
use super::error::{Failure, failure, fault, unread_body};
use crate::app::access::{CONTRIBUTOR, READER};
use crate::app::attest::Service;
use crate::app::signing::PUBLISHED_AHEAD;

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let operation = |id, summary, role| Operation::new(id, "Providers", summary).access(Access::Role(role));
    let listed = operation("listProviders", "All providers.", READER).answers::<Vec<ProviderView>>();
    let shown = operation("getProvider", "One provider.", READER).answers::<ProviderView>().errors(&[404]);
    let kept = operation("putProvider", "Makes a provider, or changes its settings.", CONTRIBUTOR)
        .takes::<ProviderSettings>()
        .answers::<ProviderView>()
        .answers_with(201, Some(Content::json::<ProviderView>()))
        .errors(&[400, 404, 409]);
    let deleted = operation("deleteProvider", "Removes a provider with all that is its own.", CONTRIBUTOR)
        .answers_with(204, None)
        .errors(&[400, 404]);
    let rotated =
        operation("rotateSigningKey", "The next signing key: published now, used in an hour.", CONTRIBUTOR)
            .answers::<JwkSet>()
            .errors(&[404]);
    vec![
        Route::get("/providers", list, listed),
        Route::get("/providers/{name}", show, shown),
        Route::put("/providers/{name}", put, kept),
        Route::delete("/providers/{name}", delete, deleted),
        Route::post("/signingKeys:rotate", rotate_signing_key, rotated),
    ]
}

async fn list(State(service): State<Arc<Service>>, _: Reader) -> Json<Vec<ProviderView>> {
    Json(service.provider_views())
}

async fn show(
    State(service): State<Arc<Service>>,
    _: Reader,
    Path(name): Path<String>,
) -> Result<Json<ProviderView>, Failure> {
    let provider = service.providers.find(&name).ok_or_else(|| {
        failure(StatusCode::NOT_FOUND, "ProviderNotFound", format!("there is no provider {name}"))
    })?;
    Ok(Json(provider.view()))
}

async fn put(
    State(service): State<Arc<Service>>,
    Contributor(caller): Contributor,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    let settings: ProviderSettings = serde_json::from_slice(&body).map_err(|error| {
        failure(StatusCode::BAD_REQUEST, "InvalidParameter", format!("the provider's settings: {error}"))
    })?;
    let (view, made) = service.put_provider(&name, settings, &caller, super::now()).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view)).into_response())
}

async fn delete(
    State(service): State<Arc<Service>>,
    Contributor(caller): Contributor,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    service.delete_provider(&name, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The next key is published at once and signs an hour later.
async fn rotate_signing_key(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    ProviderContributor(caller): ProviderContributor,
) -> Result<Json<JwkSet>, Failure> {
    let now = super::now();
    let rotated = service.rotate_signing_key(&provider, &caller, now, now + PUBLISHED_AHEAD).await;
    rotated.map_err(|error| fault(&error))?;
    Ok(Json(provider.signer.jwk_set(now)))
}
