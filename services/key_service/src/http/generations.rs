//! `/keys/{name}/generations`: which guest state of each VM was released last. An extension of Casemate.

use axum::Json;
use axum::extract::{Path, Request, State};
use http_service::{Operation, Route};
use public_api::key_generations::{GenerationListResult, GenerationResetParameters, GenerationResetResult};

use super::keys::{API_VERSION, Answer, Routes, Shared, TAG, counted, with};
use super::request::{ApiVersion, strict_json};
use crate::app::counts::Kind;
use crate::token::access::On;
use crate::token::caller::Caller;
use crate::token::permission::Permission;

/// The routes of this file.
pub fn routes() -> Routes {
    let operation = |id, summary, permission| {
        Operation::new(id, TAG, summary).access(with(permission)).query(API_VERSION)
    };
    let listed = operation(
        "listGenerations",
        "The generation of each VM's guest state that was released last.",
        Permission::Get,
    )
    .answers::<GenerationListResult>()
    .errors(&[400, 404]);
    let reset = operation(
        "resetGeneration",
        "Puts a VM's newest generation back, for a guest state that was restored from a backup.",
        Permission::ResetGeneration,
    )
    .takes::<GenerationResetParameters>()
    .answers::<GenerationResetResult>()
    .errors(&[400, 404, 409]);
    vec![
        Route::get("/keys/{name}/generations", list, listed),
        Route::put("/keys/{name}/generations/{vmId}", self::reset, reset),
    ]
}

async fn list(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<GenerationListResult> {
    state.permit(&caller, Permission::Get, On::Key(&name)).await?;
    Ok(Json(state.generations(&name).await?))
}

async fn reset(
    caller: Caller,
    State(state): Shared,
    Path((name, vm_id)): Path<(String, String)>,
    _version: ApiVersion,
    request: Request,
) -> Answer<GenerationResetResult> {
    let work = async {
        state.permit(&caller, Permission::ResetGeneration, On::Key(&name)).await?;
        let asked = strict_json(request).await?;
        state.reset_generation(&caller, (&name, &vm_id), asked).await
    };
    counted(&state, Kind::ResetGeneration, work).await.map(Json)
}
