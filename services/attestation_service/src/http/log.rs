//! `GET /log?after=N`: the decision log.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use public_api::decision_log::Entry;
use serde::Deserialize;

use super::caller::Reader;
use super::error::{Failure, failure, fault};
use crate::app::attest::Service;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    #[serde(default)]
    after: u64,
}

pub async fn entries(
    State(service): State<Arc<Service>>,
    _: Reader,
    query: Result<Query<After>, QueryRejection>,
) -> Result<Json<Vec<Entry>>, Failure> {
    let Query(After { after }) = query.map_err(|rejection| {
        failure(StatusCode::BAD_REQUEST, "InvalidParameter", format!("`after`: {}", rejection.body_text()))
    })?;
    service.store.entries_after(after).await.map(Json).map_err(|error| fault(&error))
}
