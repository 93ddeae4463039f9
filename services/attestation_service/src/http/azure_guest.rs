//! `POST /attest/AzureGuest`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use public_api::attestation::AttestResponse;

use super::caller::Of;
use super::error::{Failure, unread_body};
use crate::app::attest::Service;
use crate::app::azure_guest::request::GuestRequest;

pub async fn attest(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AttestResponse>, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    let request = GuestRequest::parse(&body)?;
    Ok(Json(service.attest_guest(&provider, request, super::now()).await?))
}
