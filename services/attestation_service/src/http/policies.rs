//! `GET /policies/{type}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use public_api::attestation::AttestResponse;

use super::attest::not_supported_type;
use super::error::{Failure, fault};
use crate::app::attest::Service;
use crate::app::azure_guest::policy;
use crate::app::platform_policy;

pub async fn show(
    State(service): State<Arc<Service>>,
    Path(attestation_type): Path<String>,
) -> Result<Json<AttestResponse>, Failure> {
    let text = match attestation_type.to_ascii_lowercase().as_str() {
        "sevsnpvm" => platform_policy::DEFAULT_POLICY,
        "azureguest" => policy::DEFAULT_POLICY,
        "tpm" => policy::DEFAULT_TPM_POLICY,
        _ => return Err(not_supported_type(&attestation_type)),
    };
    service.policy_token(text, super::now()).map(Json).map_err(|error| fault(&error))
}
