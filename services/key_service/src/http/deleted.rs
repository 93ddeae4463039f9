//! `/deletedkeys`: keys that can be recovered, or destroyed before their time.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use http_service::{Operation, Route};
use public_api::keys::{DeletedKeyBundle, KeyBundle, KeyListResult};

use super::keys::{API_VERSION, Answer, Routes, Shared, counted, page, paged, with};
use super::request::{ApiVersion, Paging};
use crate::app::AppError;
use crate::app::counts::Kind;
use crate::store::keys::Among;
use crate::token::access::On;
use crate::token::caller::Caller;
use crate::token::permission::Permission;

const TAG: &str = "Deleted keys";

/// The routes of this file.
pub fn routes() -> Routes {
    let operation = |id, summary, permission| {
        Operation::new(id, TAG, summary).access(with(permission)).query(API_VERSION)
    };
    let listed = operation("listDeletedKeys", "Deleted keys, by name.", Permission::ListDeleted);
    let listed = paged(listed).answers::<KeyListResult>().errors(&[400]);
    let shown = operation("getDeletedKey", "The newest version of a deleted key.", Permission::GetDeleted)
        .answers::<DeletedKeyBundle>()
        .errors(&[400, 404]);
    let purged = operation("purgeDeletedKey", "Destroys a deleted key before its time.", Permission::Purge)
        .answers_with(204, None)
        .errors(&[400, 404]);
    let recovered = operation("recoverDeletedKey", "A deleted key is live again.", Permission::Recover)
        .answers::<KeyBundle>()
        .errors(&[400, 404]);
    vec![
        Route::get("/deletedkeys", list, listed),
        Route::get("/deletedkeys/{name}", show, shown),
        Route::delete("/deletedkeys/{name}", purge, purged),
        Route::post("/deletedkeys/{name}/recover", recover, recovered),
    ]
}

async fn list(
    caller: Caller,
    State(state): Shared,
    version: ApiVersion,
    paging: Paging,
) -> Answer<KeyListResult> {
    state.permit(&caller, Permission::ListDeleted, On::Vault("deletedkeys")).await?;
    let items = state.keys(Among::Deleted, &paging.after, paging.limit).await?;
    Ok(Json(page(&state, "deletedkeys", items, &paging, &version)))
}

async fn show(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<DeletedKeyBundle> {
    state.permit(&caller, Permission::GetDeleted, On::Key(&name)).await?;
    Ok(Json(state.deleted_key(&name).await?))
}

async fn recover(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<KeyBundle> {
    let work = async {
        state.permit(&caller, Permission::Recover, On::Key(&name)).await?;
        state.recover_key(&caller, &name).await
    };
    counted(&state, Kind::Recover, work).await.map(Json)
}

async fn purge(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Result<StatusCode, AppError> {
    let work = async {
        state.permit(&caller, Permission::Purge, On::Key(&name)).await?;
        state.purge_key(&caller, &name).await
    };
    counted(&state, Kind::Purge, work).await.map(|()| StatusCode::NO_CONTENT)
}
