//! `POST /attest/Tpm`. It needs a token where the provider's `tpmAttestationAuthentication` says so.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use http_service::gate::Cost;
use http_service::routes::Content;
use http_service::{Access, Operation, Route};
use public_api::attestation_policy::{AttestationType, TpmAttestationAuthentication};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::attest::{API_VERSION, TAG};
use super::caller::{Of, ProviderReader};
use super::error::{Failure, unread_body};
use crate::app::access::READER;
use crate::app::attest::Service;
use crate::app::counts::Attested;
use crate::app::tpm::request::{Envelope, Message};

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let summary = "A challenge, or, for a TPM's quote over it, a token.";
    let envelope = || Content { media_type: "application/json", schema: envelope };
    let operation = Operation::new("attestTpm", TAG, summary)
        .access(Access::OpenUnless(READER))
        .query(API_VERSION)
        .takes_content(envelope())
        .answers_with(200, Some(envelope()))
        .errors(&[400, 404]);
    vec![Route::post("/attest/Tpm", attest, operation).cost(Cost::Costly)]
}

fn envelope(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["data"],
        "properties": {"data": {
            "type": "string",
            "description": "Base64url of the protocol's JSON message.",
        }},
    })
}

/// A caller whom the provider permits to attest with a TPM.
struct Permitted;

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

async fn attest(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    _: Permitted,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    let envelope = Envelope::parse(&body)?;
    let is_request = matches!(envelope.message, Message::Request(_));
    let attested = service.attest_tpm(&provider, envelope, super::now()).await;
    if is_request {
        service.counts.attested(AttestationType::Tpm, Attested::of(&attested));
    }
    Ok(Json(attested?))
}
