//! `POST /attest/Tpm`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde_json::Value;

use super::caller::Of;
use super::error::{Failure, unread_body};
use crate::app::attest::Service;
use crate::app::tpm::request::Envelope;

pub async fn attest(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    let envelope = Envelope::parse(&body)?;
    Ok(Json(service.attest_tpm(&provider, envelope, super::now()).await?))
}
