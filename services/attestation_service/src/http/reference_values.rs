//! `/referenceValues`: the accepted launches as a signed document.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use public_api::collateral::ReferencesImported;

use super::caller::{Contributor, Of};
use super::error::{Failure, denied, fault};
use super::policies::{Text, text};
use crate::app::attest::Service;
use crate::app::reference_document::ReferenceError;

/// The routes of this file.
pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/referencevalues", get(export).put(import))
}

/// A tenant compares them with what it computes itself: no permission is needed.
async fn export(State(service): State<Arc<Service>>, Of(provider): Of) -> Result<impl IntoResponse, Failure> {
    let jws = service.export_references(&provider, super::now()).map_err(|error| fault(&error))?;
    Ok(([(CONTENT_TYPE, "application/jose")], jws))
}

async fn import(
    State(service): State<Arc<Service>>,
    Contributor(caller): Contributor,
    body: Text,
) -> Result<Json<ReferencesImported>, Failure> {
    let imported = service.import_references(&text(body)?, &caller, super::now()).await;
    imported.map(Json).map_err(|error| match error {
        ReferenceError::Refused(denial) => denied(StatusCode::BAD_REQUEST, "InvalidOperation", *denial),
        ReferenceError::Store(error) => fault(&error),
    })
}
