//! `/keys/{name}/backup` and `/keys/restore`.

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use public_api::key_operations::KeyBackup;

use super::error::method_not_allowed;
use super::keys::{Answer, Shared, subject};
use super::request::{ApiVersion, json};
use crate::app::AppError;
use crate::token::caller::{Caller, Permission};

/// The last part of `/keys/restore`.
const RESTORE: &str = "restore";

pub async fn backup(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<KeyBackup> {
    state.permit(&caller, Permission::Manage, &subject(&name)).await?;
    Ok(Json(state.backup_key(&caller, &name).await?))
}

/// `POST /keys/restore`. No other `POST /keys/{name}` exists.
pub async fn restore(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
    request: Request,
) -> Result<Response, AppError> {
    if name != RESTORE {
        return Ok(method_not_allowed().await);
    }
    state.permit(&caller, Permission::Manage, "keys").await?;
    let backup: KeyBackup = json(request).await?;
    Ok(Json(state.restore_key(&caller, &backup).await?).into_response())
}
