//! `GET /log?after=N`: the decision log.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use http_service::routes::Query as QueryParameter;
use http_service::{Access, Operation, Route};
use public_api::decision_log::Entry;
use serde::Deserialize;

use super::caller::Reader;
use super::error::{Failure, failure, fault};
use crate::app::access::READER;
use crate::app::attest::Service;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    #[serde(default)]
    after: u64,
}

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let after = QueryParameter {
        name: "after",
        kind: "integer",
        required: false,
        description: "The number of the last entry that is known; 0 for none.",
    };
    let operation = Operation::new("listDecisions", "Service", "Up to 500 entries of the decision log.")
        .access(Access::Role(READER))
        .query(after)
        .answers::<Vec<Entry>>()
        .errors(&[400]);
    vec![Route::get("/log", entries, operation)]
}

async fn entries(
    State(service): State<Arc<Service>>,
    _: Reader,
    query: Result<Query<After>, QueryRejection>,
) -> Result<Json<Vec<Entry>>, Failure> {
    let Query(After { after }) = query.map_err(|rejection| {
        failure(StatusCode::BAD_REQUEST, "InvalidParameter", format!("`after`: {}", rejection.body_text()))
    })?;
    service.store.entries_after(after).await.map(Json).map_err(|error| fault(&error))
}
