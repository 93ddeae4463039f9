//! `POST /attest/AzureGuest`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http_service::gate::Cost;
use http_service::routes::Content;
use http_service::{Operation, Route};
use public_api::attestation::AttestResponse;
use public_api::attestation_policy::AttestationType;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::attest::{API_VERSION, TAG};
use super::caller::Of;
use super::error::{Failure, unread_body};
use crate::app::attest::Service;
use crate::app::azure_guest::request::GuestRequest;
use crate::app::counts::Attested;

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let summary =
        "What a guest's vTPM says, with the report that binds it, in; token, sealed to the vTPM, out.";
    let operation = Operation::new("attestAzureGuest", TAG, summary)
        .query(API_VERSION)
        .takes_content(Content { media_type: "application/json", schema: request })
        .answers::<AttestResponse>()
        .errors(&[400, 404]);
    vec![Route::post("/attest/AzureGuest", attest, operation).cost(Cost::Costly)]
}

fn request(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["AttestationInfo"],
        "properties": {"AttestationInfo": {
            "type": "string",
            "description": "Base64url of the JSON that Azure's guest attestation library writes, protocol 2.0.",
        }},
    })
}

async fn attest(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AttestResponse>, Failure> {
    let body = body.map_err(|rejection| unread_body(&rejection))?;
    let request = GuestRequest::parse(&body)?;
    let attested = service.attest_guest(&provider, request, super::now()).await;
    service.counts.attested(AttestationType::AzureGuest, Attested::of(&attested));
    Ok(Json(attested?))
}
