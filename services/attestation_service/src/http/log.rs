//! `GET /log?after=N`: the decision log, for the holder of the configured bearer token.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use public_api::decision_log::Entry;
use serde::Deserialize;

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
    headers: HeaderMap,
    query: Result<Query<After>, QueryRejection>,
) -> Result<Json<Vec<Entry>>, Failure> {
    authorize(&service, &headers)?;
    let Query(After { after }) = query.map_err(|rejection| {
        failure(StatusCode::BAD_REQUEST, "InvalidParameter", format!("`after`: {}", rejection.body_text()))
    })?;
    service.store.entries_after(after).await.map(Json).map_err(|error| fault(&error))
}

/// The token is compared by its hash, so that neither the configuration nor the time taken tells it.
fn authorize(service: &Service, headers: &HeaderMap) -> Result<(), Failure> {
    let refused = |message: &str| failure(StatusCode::UNAUTHORIZED, "Unauthorized", message);
    let Some(expected) = service.log_token_sha256 else {
        return Err(refused("this service is configured without a token for its log (log_token_sha256)"));
    };
    let presented = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = presented.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    aws_lc_rs::constant_time::verify_slices_are_equal(hash.as_ref(), &expected)
        .map_err(|_| refused("a bearer token for the log is needed"))
}
