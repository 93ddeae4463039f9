//! `GET /policies/{type}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use public_api::attestation::AttestResponse;

use super::attest::not_supported_type;
use super::error::{Failure, fault};
use crate::app::attest::Service;

pub async fn show(
    State(service): State<Arc<Service>>,
    Path(attestation_type): Path<String>,
) -> Result<Json<AttestResponse>, Failure> {
    if !attestation_type.eq_ignore_ascii_case("SevSnpVm") {
        return Err(not_supported_type(&attestation_type));
    }
    service.policy_token(super::now()).map(Json).map_err(|error| fault(&error))
}
