//! `POST /attestationKeyCertificates`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http_service::gate::Cost;
use http_service::{Operation, Route};
use public_api::attestation_keys::{AttestationKeyCertificateRequest, AttestationKeyCertificateResponse};

use super::caller::Of;
use super::error::{Failure, unread_body};
use crate::app::ak_certificates::CertificateRequest;
use crate::app::attest::Service;

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let summary = "A certificate for the attestation key of a vTPM that permitted evidence binds.";
    let operation = Operation::new("certifyAttestationKey", super::attest::TAG, summary)
        .takes::<AttestationKeyCertificateRequest>()
        .answers::<AttestationKeyCertificateResponse>()
        .errors(&[400, 404]);
    vec![Route::post("/attestationKeyCertificates", certify, operation).cost(Cost::Costly)]
}

async fn certify(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AttestationKeyCertificateResponse>, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    let request = CertificateRequest::parse(&body)?;
    Ok(Json(service.certify_attestation_key(&provider, request, super::now()).await?))
}
