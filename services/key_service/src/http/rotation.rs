//! `/keys/{name}/rotate` and `/keys/{name}/rotationpolicy`.

use axum::Json;
use axum::extract::{Path, Request, State};
use http_service::gate::Cost;
use http_service::{Operation, Route};
use public_api::key_rotation::KeyRotationPolicy;
use public_api::keys::KeyBundle;

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
    let rotated = operation("rotateKey", "A new version like the newest one.", Permission::Rotate)
        .answers::<KeyBundle>()
        .errors(&[400, 404, 409]);
    let shown =
        operation("getKeyRotationPolicy", "When a key is renewed by itself.", Permission::GetRotationPolicy)
            .answers::<KeyRotationPolicy>()
            .errors(&[400, 404]);
    let set =
        operation("updateKeyRotationPolicy", "Sets when a key is renewed.", Permission::SetRotationPolicy)
            .takes::<KeyRotationPolicy>()
            .answers::<KeyRotationPolicy>()
            .errors(&[400, 404]);
    vec![
        Route::post("/keys/{name}/rotate", rotate, rotated).cost(Cost::Costly),
        Route::get("/keys/{name}/rotationpolicy", policy, shown),
        Route::put("/keys/{name}/rotationpolicy", set_policy, set),
    ]
}

async fn rotate(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<KeyBundle> {
    let work = async {
        state.permit(&caller, Permission::Rotate, On::Key(&name)).await?;
        state.rotate_key(&caller, &name).await
    };
    counted(&state, Kind::Rotate, work).await.map(Json)
}

async fn policy(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<KeyRotationPolicy> {
    state.permit(&caller, Permission::GetRotationPolicy, On::Key(&name)).await?;
    Ok(Json(state.rotation_policy(&name).await?))
}

async fn set_policy(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyRotationPolicy> {
    let work = async {
        state.permit(&caller, Permission::SetRotationPolicy, On::Key(&name)).await?;
        let policy = strict_json(request).await?;
        state.set_rotation_policy(&caller, &name, policy).await
    };
    counted(&state, Kind::SetRotationPolicy, work).await.map(Json)
}
