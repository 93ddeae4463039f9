//! `POST /attest/{type}` and `POST /nonces`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use public_api::attestation::{AttestResponse, NonceResponse};

use super::caller::Of;
use super::error::{Failure, failure, unread_body};
use crate::app::attest::Service;
use crate::app::request::Request;

/// Attestation types of Azure that this service does not verify.
const NOT_SUPPORTED: [&str; 3] = ["SgxEnclave", "OpenEnclave", "TdxVm"];

pub async fn sev_snp_vm(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AttestResponse>, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    let request = Request::parse(&body)?;
    Ok(Json(service.attest(&provider, request, super::now()).await?))
}

pub async fn not_supported(Path(attestation_type): Path<String>) -> Failure {
    not_supported_type(&attestation_type)
}

/// The answer for a type that has no route.
pub fn not_supported_type(attestation_type: &str) -> Failure {
    let known = NOT_SUPPORTED.iter().find(|known| known.eq_ignore_ascii_case(attestation_type));
    match known {
        Some(known) => failure(
            StatusCode::BAD_REQUEST,
            "AttestationTypeNotSupported",
            format!(
                "attestation type {known} is not supported by this service; SevSnpVm, AzureGuest and Tpm are"
            ),
        ),
        None => failure(
            StatusCode::NOT_FOUND,
            "NotFound",
            "no such attestation type; SevSnpVm, AzureGuest and Tpm are supported",
        ),
    }
}

pub async fn nonce(State(service): State<Arc<Service>>) -> Json<NonceResponse> {
    Json(service.issue_nonce(super::now()))
}
