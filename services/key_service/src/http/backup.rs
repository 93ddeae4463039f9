//! `/keys/{name}/backup` and `/keys/restore`.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http_service::gate::Cost;
use http_service::{Operation, Route};
use public_api::key_operations::KeyBackup;
use public_api::keys::KeyBundle;

use super::error::method_not_allowed;
use super::keys::{API_VERSION, Answer, Routes, Shared, TAG, counted, with};
use super::request::{ApiVersion, json};
use crate::app::AppError;
use crate::app::counts::Kind;
use crate::token::access::On;
use crate::token::caller::Caller;
use crate::token::permission::Permission;

/// The last part of `/keys/restore`.
const RESTORE: &str = "restore";

/// The routes of this file.
pub fn routes() -> Routes {
    let made = Operation::new("backupKey", TAG, "All versions of a key, for this vault alone.")
        .access(with(Permission::Backup))
        .query(API_VERSION)
        .answers::<KeyBackup>()
        .errors(&[400, 404]);
    let restored = Operation::new("restoreKey", TAG, "Brings a key back from its backup.")
        .at("/keys/restore")
        .access(with(Permission::Restore))
        .query(API_VERSION)
        .takes::<KeyBackup>()
        .answers::<KeyBundle>()
        .errors(&[400, 409]);
    vec![
        Route::post("/keys/{name}/backup", backup, made),
        // A key may be named "restore", so that path is no route of its own.
        Route::post("/keys/{name}", restore, restored).cost(Cost::Costly),
    ]
}

async fn backup(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<KeyBackup> {
    let work = async {
        state.permit(&caller, Permission::Backup, On::Key(&name)).await?;
        state.backup_key(&caller, &name).await
    };
    counted(&state, Kind::Backup, work).await.map(Json)
}

/// `POST /keys/restore`. No other `POST /keys/{name}` exists.
async fn restore(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
    request: Request,
) -> Result<Response, AppError> {
    if name != RESTORE {
        return Ok(method_not_allowed());
    }
    let work = async {
        state.permit(&caller, Permission::Restore, On::Vault("keys")).await?;
        let backup: KeyBackup = json(request).await?;
        state.restore_key(&caller, &backup).await
    };
    Ok(Json(counted(&state, Kind::Restore, work).await?).into_response())
}
