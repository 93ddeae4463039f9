//! `/minimumTcb` and `/minimumTcb:dryRun`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use http_service::routes::Content;
use http_service::{Access, Operation, Route};
use public_api::collateral::{MinimumTcbDryRun, MinimumTcbInForce};

use super::caller::{Contributor, Reader};
use super::error::{Failure, denied, fault};
use super::policies::{Text, text};
use crate::app::access::{CONTRIBUTOR, READER};
use crate::app::attest::Service;
use crate::app::minimum_tcb::MinimumTcbError;

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let operation = |id, summary| Operation::new(id, "Minimum TCB", summary);
    let table = || Content::text("application/jose");
    let shown =
        operation("getMinimumTcb", "The lowest accepted patch levels.").answers::<MinimumTcbInForce>();
    let kept = operation("setMinimumTcb", "Takes up a newer signed table of patch levels.")
        .access(Access::Role(CONTRIBUTOR))
        .takes_content(table())
        .answers::<MinimumTcbInForce>()
        .errors(&[400]);
    let tried = operation("dryRunMinimumTcb", "What a table would refuse of the evidence that is stored.")
        .access(Access::Role(READER))
        .takes_content(table())
        .answers::<MinimumTcbDryRun>()
        .errors(&[400]);
    vec![
        Route::get("/minimumTcb", show, shown),
        Route::put("/minimumTcb", set, kept),
        Route::post("/minimumTcb:dryRun", dry_run, tried),
    ]
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
