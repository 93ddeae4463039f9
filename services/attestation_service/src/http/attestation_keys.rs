//! `POST /attestationKeyCertificates`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use public_api::attestation_keys::AttestationKeyCertificateResponse;

use super::caller::Of;
use super::error::{Failure, unread_body};
use crate::app::ak_certificates::CertificateRequest;
use crate::app::attest::Service;

pub async fn certify(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AttestationKeyCertificateResponse>, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    let request = CertificateRequest::parse(&body)?;
    Ok(Json(service.certify_attestation_key(&provider, request, super::now()).await?))
}
