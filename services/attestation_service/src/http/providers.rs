//! `/providers` and `/providers/{name}`: the instances of this service; `/signingKeys:rotate` for one of them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use public_api::attestation_policy::{ProviderSettings, ProviderView};
use public_api::jwk::JwkSet;

use super::caller::{Contributor, Of, ProviderContributor, Reader};
use super::error::{Failure, failure, fault, unread_body};
use crate::app::attest::Service;
use crate::app::signing::PUBLISHED_AHEAD;

pub async fn list(State(service): State<Arc<Service>>, _: Reader) -> Json<Vec<ProviderView>> {
    Json(service.provider_views())
}

pub async fn show(
    State(service): State<Arc<Service>>,
    _: Reader,
    Path(name): Path<String>,
) -> Result<Json<ProviderView>, Failure> {
    let provider = service.providers.find(&name).ok_or_else(|| {
        failure(StatusCode::NOT_FOUND, "ProviderNotFound", format!("there is no provider {name}"))
    })?;
    Ok(Json(provider.view()))
}

pub async fn put(
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

pub async fn delete(
    State(service): State<Arc<Service>>,
    Contributor(caller): Contributor,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    service.delete_provider(&name, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The next key is published at once and signs an hour later.
pub async fn rotate_signing_key(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    ProviderContributor(caller): ProviderContributor,
) -> Result<Json<JwkSet>, Failure> {
    let now = super::now();
    let rotated = service.rotate_signing_key(&provider, &caller, now, now + PUBLISHED_AHEAD).await;
    rotated.map_err(|error| fault(&error))?;
    Ok(Json(provider.signer.jwk_set(now)))
}
