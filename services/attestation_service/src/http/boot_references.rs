//! `/bootReferences`: the boot chains of known images.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use public_api::collateral::{BootReference, BootReferenceName};

use super::caller::Contributor;
use super::collateral::{Body, read};
use super::error::{Failure, failure, fault};
use crate::app::attest::Service;
use crate::app::boot_reference::BootReferenceError;

/// The routes of this file.
pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/bootreferences", get(list).put(put)).route("/bootreferences:remove", post(remove))
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
