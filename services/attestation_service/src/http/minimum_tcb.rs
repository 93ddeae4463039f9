//! `/minimumTcb` and `/minimumTcb:dryRun`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use public_api::collateral::{MinimumTcbDryRun, MinimumTcbInForce};

use super::caller::{Contributor, Reader};
use super::error::{Failure, denied, fault};
use super::policies::{Text, text};
use crate::app::attest::Service;
use crate::app::minimum_tcb::MinimumTcbError;

/// The routes of this file.
pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/minimumtcb", get(show).put(set)).route("/minimumtcb:dryrun", post(dry_run))
}

async fn show(State(service): State<Arc<Service>>) -> Json<MinimumTcbInForce> {
    Json(service.appraiser.minimum_tcb().show())
}

async fn set(
    State(service): State<Arc<Service>>,
    Contributor(caller): Contributor,
    body: Text,
) -> Result<Json<MinimumTcbInForce>, Failure> {
    let set = service.set_minimum_tcb(&text(body)?, &caller, super::now()).await;
    set.map(Json).map_err(failed)
}

async fn dry_run(
    State(service): State<Arc<Service>>,
    _: Reader,
    body: Text,
) -> Result<Json<MinimumTcbDryRun>, Failure> {
    service.dry_run_minimum_tcb(&text(body)?, super::now()).await.map(Json).map_err(failed)
}

fn failed(error: MinimumTcbError) -> Failure {
    match error {
        MinimumTcbError::Refused(denial) => denied(StatusCode::BAD_REQUEST, "InvalidOperation", *denial),
        MinimumTcbError::Store(error) => fault(&error),
    }
}
