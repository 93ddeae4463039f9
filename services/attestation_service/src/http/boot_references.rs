//! `/bootReferences`: the boot chains of known images.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use http_service::{Access, Operation, Route};
use public_api::collateral::{BootReference, BootReferenceName};

use super::caller::Contributor;
use super::collateral::{Body, read};
use super::error::{Failure, failure, fault};
use crate::app::access::CONTRIBUTOR;
use crate::app::attest::Service;
use crate::app::boot_reference::BootReferenceError;

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let operation = |id, summary| Operation::new(id, "Reference values", summary);
    let shown =
        operation("listBootReferences", "The boot chains of known images.").answers::<Vec<BootReference>>();
    let kept = operation("putBootReference", "Adds or replaces the boot chain of an image.")
        .access(Access::Role(CONTRIBUTOR))
        .takes::<BootReference>()
        .answers::<BootReference>()
        .errors(&[400]);
    let removed = operation("removeBootReference", "Removes the boot chain of an image.")
        .access(Access::Role(CONTRIBUTOR))
        .takes::<BootReferenceName>()
        .answers_with(204, None)
        .errors(&[400, 404]);
    vec![
        Route::get("/bootReferences", list, shown),
        Route::put("/bootReferences", put, kept),
        Route::post("/bootReferences:remove", remove, removed),
    ]
}

/// A tenant compares them with what it computes itself: no permission is needed.
async fn list(State(service): State<Arc<Service>>) -> Json<Vec<BootReference>> {
    Json(service.appraiser.boot_references().all())
}

async fn put(
    State(service): State<Arc<Service>>,
    Contributor(caller): Contributor,
    body: Body,
) -> Result<Json<BootReference>, Failure> {
    let put = service.put_boot_reference(read(body)?, &caller).await;
    put.map(Json).map_err(|error| match error {
        BootReferenceError::Form(error) => error.into(),
        BootReferenceError::Store(error) => fault(&error),
    })
}

async fn remove(
    State(service): State<Arc<Service>>,
    Contributor(caller): Contributor,
    body: Body,
) -> Result<StatusCode, Failure> {
    let BootReferenceName { name } = read(body)?;
    let removed = service.remove_boot_reference(&name, &caller).await.map_err(|error| fault(&error))?;
    if removed {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(failure(StatusCode::NOT_FOUND, "NotFound", format!("there is no boot chain named {name:?}")))
}
