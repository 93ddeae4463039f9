//! `POST /attest/Tpm`. It needs a token where the provider's `tpmAttestationAuthentication` says so.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use public_api::attestation_policy::TpmAttestationAuthentication;
use serde_json::Value;

use super::caller::{Of, ProviderReader};
use super::error::{Failure, unread_body};
use crate::app::attest::Service;
use crate::app::tpm::request::Envelope;

/// A caller whom the provider permits to attest with a TPM.
pub struct Permitted;

impl FromRequestParts<Arc<Service>> for Permitted {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Response> {
        let Of(provider) =
            Of::from_request_parts(parts, service).await.map_err(|failure| failure.into_response())?;
        match provider.settings().tpm_attestation_authentication {
            TpmAttestationAuthentication::Disabled => Ok(Self),
            TpmAttestationAuthentication::Enabled => {
                ProviderReader::from_request_parts(parts, service).await.map(|_| Self)
            }
        }
    }
}

pub async fn attest(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    _: Permitted,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    let envelope = Envelope::parse(&body)?;
    Ok(Json(service.attest_tpm(&provider, envelope, super::now()).await?))
}
