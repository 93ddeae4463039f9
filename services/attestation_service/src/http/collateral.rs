//! `/collateral:prefetch` and `/collateral/bundle`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use http_service::{Access, Operation, Route};
use public_api::collateral::{BundleImported, CollateralBundle, PrefetchRequest, Prefetched};
use serde::de::DeserializeOwned;

use super::caller::{Contributor, Reader};
use super::error::{Failure, denied, failure, fault, unavailable, unread_body};
use crate::app::access::{CONTRIBUTOR, READER};
use crate::app::attest::Service;
use crate::app::collateral::bundle::BundleError;
use crate::app::collateral::prefetch::PrefetchError;

/// Longest accepted bundle: the certificates of some twenty thousand chips.
const MAX_BUNDLE: usize = 64 * 1024 * 1024;

/// A body, or why it did not arrive.
pub type Body = Result<Bytes, BytesRejection>;

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let operation = |id, summary| Operation::new(id, "Collateral", summary);
    let fetched = operation("prefetchCollateral", "Fetches what a host's VMs will need.")
        .access(Access::Role(CONTRIBUTOR))
        .takes::<PrefetchRequest>()
        .answers::<Prefetched>()
        .errors(&[400]);
    let exported =
        operation("exportCollateral", "All certificates and revocation lists that are known here.")
            .access(Access::Role(READER))
            .answers::<CollateralBundle>();
    let imported =
        operation("importCollateral", "Takes in what another service exported; all of it is verified.")
            .access(Access::Role(CONTRIBUTOR))
            .takes::<CollateralBundle>()
            .answers::<BundleImported>()
            .errors(&[400]);
    vec![
        Route::post("/collateral:prefetch", prefetch, fetched),
        Route::get("/collateral/bundle", export, exported),
        Route::post("/collateral/bundle", import, imported).max_body(MAX_BUNDLE),
    ]
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
