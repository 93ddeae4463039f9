//! `POST /rng`: random bytes.

use axum::Json;
use axum::extract::{Extension, Request, State};
use public_api::key_operations::RandomBytes;

use super::keys::{Answer, Shared};
use super::request::{ApiVersion, json};
use crate::app::random;
use crate::token::caller::{Caller, Permission};

pub async fn bytes(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    _version: ApiVersion,
    request: Request,
) -> Answer<RandomBytes> {
    state.permit(&caller, Permission::Use, "rng").await?;
    Ok(Json(random::bytes(json(request).await?)?))
}
