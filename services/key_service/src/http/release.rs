//! `POST /keys/{name}[/{version}]/release`.

use axum::Json;
use axum::extract::{Extension, Request, State};
use public_api::keys::KeyReleaseResult;

use super::keys::{Answer, Shared, subject};
use super::request::{ApiVersion, json};
use crate::app::AppError;
use crate::app::keys::KeyRef;
use crate::token::caller::{Caller, Permission};

pub async fn release(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    key: KeyRef,
    version: ApiVersion,
    request: Request,
) -> Answer<KeyReleaseResult> {
    state.permit(&caller, Permission::Release, &subject(&key.name)).await?;
    if !version.releasable {
        return Err(AppError::bad("api-version", "release needs api-version 7.3 or later"));
    }
    let parameters = json(request).await?;
    Ok(Json(state.release_key(&caller, &key, parameters, version.as_str()).await?))
}
