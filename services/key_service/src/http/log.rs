//! `GET /log?after=N`: the decision log, up to 500 entries a page.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use public_api::decision_log::Entry;

use super::request::number;
use crate::app::{AppError, AppState};
use crate::store::decisions;
use crate::token::caller::{Caller, Permission};

pub async fn entries(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Vec<Entry>>, AppError> {
    state.permit(&caller, Permission::Log, "log").await?;
    let (parts, _) = request.into_parts();
    let after = number(&parts, "after")?.unwrap_or(0);
    Ok(Json(decisions::after(state.store.readers(), after).await?))
}
