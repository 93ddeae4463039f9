//! `/keys/{name}/rotate` and `/keys/{name}/rotationpolicy`.

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use public_api::key_rotation::KeyRotationPolicy;
use public_api::keys::KeyBundle;

use super::keys::{Answer, Shared, subject};
use super::request::{ApiVersion, strict_json};
use crate::token::caller::{Caller, Permission};

pub async fn rotate(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<KeyBundle> {
    state.permit(&caller, Permission::Manage, &subject(&name)).await?;
    Ok(Json(state.rotate_key(&caller, &name).await?))
}

pub async fn policy(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<KeyRotationPolicy> {
    state.permit(&caller, Permission::Read, &subject(&name)).await?;
    Ok(Json(state.rotation_policy(&name).await?))
}

pub async fn set_policy(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyRotationPolicy> {
    state.permit(&caller, Permission::Manage, &subject(&name)).await?;
    let policy = strict_json(request).await?;
    Ok(Json(state.set_rotation_policy(&caller, &name, policy).await?))
}
