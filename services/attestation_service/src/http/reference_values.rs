//! `/referenceValues`: the accepted launches as a signed document.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use http_service::routes::Content;
use http_service::{Access, Operation, Route};
use public_api::collateral::ReferencesImported;

use super::caller::{Contributor, Of};
use super::error::{Failure, denied, fault};
use super::policies::{Text, text};
use crate::app::access::CONTRIBUTOR;
use crate::app::attest::Service;
use crate::app::reference_document::ReferenceError;

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let operation = |id, summary| Operation::new(id, "Reference values", summary);
    let document = || Content::text("application/jose");
    let shown = operation("exportReferenceValues", "The accepted launches as a signed document.")
        .answers_with(200, Some(document()))
        .errors(&[404]);
    let kept = operation("importReferenceValues", "Takes in the signed document of another service.")
        .access(Access::Role(CONTRIBUTOR))
        .takes_content(document())
        .answers::<ReferencesImported>()
        .errors(&[400]);
    vec![Route::get("/referenceValues", export, shown), Route::put("/referenceValues", import, kept)]
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
