//! `POST /attest/{type}` and `POST /nonces`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use http_service::gate::Cost;
use http_service::peer::Peer;
use http_service::routes::Query;
use http_service::{Operation, Route};
use public_api::attestation::{AttestResponse, AttestSevSnpVmRequest, NonceResponse};
use public_api::attestation_policy::AttestationType;

use super::caller::Of;
use super::error::{Failure, failure, unread_body};
use crate::app::attest::Service;
use crate::app::counts::Attested;
use crate::app::request::Request;

/// Attestation types of Azure that this service does not verify.
const NOT_SUPPORTED: [&str; 3] = ["SgxEnclave", "OpenEnclave", "TdxVm"];

/// Of the routes that Azure Attestation has.
pub const TAG: &str = "Attestation";
/// Azure's clients send it; it is not looked at.
pub const API_VERSION: Query =
    Query { name: "api-version", kind: "string", required: false, description: "Accepted and ignored." };

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let sev_snp = Operation::new("attestSevSnpVm", TAG, "Evidence of an SEV-SNP VM in, token out.")
        .query(API_VERSION)
        .takes::<AttestSevSnpVmRequest>()
        .answers::<AttestResponse>()
        .errors(&[400, 404]);
    let other =
        Operation::new("attestOther", TAG, "The answer for a type that this service does not attest.")
            .errors(&[400, 404]);
    let nonce = Operation::new("issueNonce", TAG, "A nonce that this service accepts once.")
        .answers::<NonceResponse>();
    vec![
        Route::post("/attest/SevSnpVm", sev_snp_vm, sev_snp).cost(Cost::Costly),
        Route::post("/attest/{attestationType}", not_supported, other),
        Route::post("/nonces", nonce_of_ours, nonce),
    ]
}

async fn sev_snp_vm(
    State(service): State<Arc<Service>>,
    Extension(from): Extension<Peer>,
    Of(provider): Of,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AttestResponse>, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    let request = Request::parse(&body)?;
    let attested = service.attest(&provider, request, from, super::now()).await;
    service.counts.attested(AttestationType::SevSnpVm, Attested::of(&attested));
    Ok(Json(attested?))
}

async fn not_supported(Path(attestation_type): Path<String>) -> Failure {
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

async fn nonce_of_ours(State(service): State<Arc<Service>>) -> Json<NonceResponse> {
    Json(service.issue_nonce(super::now()))
}
