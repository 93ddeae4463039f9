//! `/deletedkeys`: keys that can be recovered, or destroyed before their time.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use public_api::keys::{DeletedKeyBundle, KeyBundle, KeyListResult};

use super::keys::{page, subject};
use super::request::{ApiVersion, Paging};
use crate::app::{AppError, AppState};
use crate::store::keys::Among;
use crate::token::caller::{Caller, Permission};

pub async fn list(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    version: ApiVersion,
    paging: Paging,
) -> Result<Json<KeyListResult>, AppError> {
    state.permit(&caller, Permission::List, "deletedkeys").await?;
    let items = state.keys(Among::Deleted, &paging.after, paging.limit).await?;
    Ok(Json(page(&state, "deletedkeys", items, &paging, &version)))
}

pub async fn show(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Result<Json<DeletedKeyBundle>, AppError> {
    state.permit(&caller, Permission::Manage, &subject(&name)).await?;
    Ok(Json(state.deleted_key(&name).await?))
}

pub async fn recover(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Result<Json<KeyBundle>, AppError> {
    state.permit(&caller, Permission::Manage, &subject(&name)).await?;
    Ok(Json(state.recover_key(&caller, &name).await?))
}

pub async fn purge(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Result<StatusCode, AppError> {
    state.permit(&caller, Permission::Manage, &subject(&name)).await?;
    state.purge_key(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
