//! `/collateral:prefetch` and `/collateral/bundle`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use public_api::collateral::{BundleImported, CollateralBundle, Prefetched};
use serde::de::DeserializeOwned;

use super::caller::{Contributor, Reader};
use super::error::{Failure, denied, failure, fault, unavailable, unread_body};
use crate::app::attest::Service;
use crate::app::collateral::bundle::BundleError;
use crate::app::collateral::prefetch::PrefetchError;

/// Longest accepted bundle: the certificates of some twenty thousand chips.
const MAX_BUNDLE: usize = 64 * 1024 * 1024;

/// A body, or why it did not arrive.
pub type Body = Result<Bytes, BytesRejection>;

/// The routes of this file.
pub fn routes() -> Router<Arc<Service>> {
    let bundle = get(export).post(import).layer(DefaultBodyLimit::max(MAX_BUNDLE));
    Router::new().route("/collateral:prefetch", post(prefetch)).route("/collateral/bundle", bundle)
}

async fn prefetch(
    State(service): State<Arc<Service>>,
    Contributor(_): Contributor,
    body: Body,
) -> Result<Json<Prefetched>, Failure> {
    let now = super::now();
    service.prefetch(&read(body)?, now).await.map(Json).map_err(|error| match error {
        PrefetchError::Form(error) => error.into(),
        PrefetchError::Missing(missing) => match missing.retry_after(now) {
            Some(seconds) => unavailable(*missing.denial(), seconds),
            None => denied(StatusCode::BAD_REQUEST, "InvalidOperation", *missing.denial()),
        },
    })
}

async fn export(State(service): State<Arc<Service>>, _: Reader) -> Result<Json<CollateralBundle>, Failure> {
    service.collateral.export(super::now()).await.map(Json).map_err(|error| fault(&error))
}

async fn import(
    State(service): State<Arc<Service>>,
    Contributor(caller): Contributor,
    body: Body,
) -> Result<Json<BundleImported>, Failure> {
    let imported = service.import_bundle(read(body)?, &caller, super::now()).await;
    imported.map(Json).map_err(|error| match error {
        BundleError::Refused(denial) => denied(StatusCode::BAD_REQUEST, "InvalidBundle", *denial),
        BundleError::Store(error) => fault(&error),
    })
}

/// A JSON body whose unknown fields are refused.
pub fn read<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    serde_json::from_slice(&body)
        .map_err(|error| failure(StatusCode::BAD_REQUEST, "InvalidParameter", format!("the body: {error}")))
}
