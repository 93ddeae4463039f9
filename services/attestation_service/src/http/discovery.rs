//! `GET /certs`, `GET /.well-known/openid-configuration`, `GET /health`: what the service is and how to trust it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http_service::gate::Cost;
use http_service::openapi::any_object;
use http_service::routes::Content;
use http_service::{Operation, Route};
use public_api::jwk::JwkSet;
use serde_json::{Value, json};
use snp::CrlScope;

use super::attest::TAG;
use super::caller::Of;
use crate::app::attest::Service;

/// The routes of this file.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let object = || Some(Content { media_type: "application/json", schema: any_object });
    let keys = Operation::new("getCerts", TAG, "The keys under which tokens verify.")
        .answers::<JwkSet>()
        .errors(&[404]);
    let configuration =
        Operation::new("getOpenIdConfiguration", TAG, "Where the keys are, and what tokens claim.")
            .answers_with(200, object())
            .errors(&[404]);
    let shown = Operation::new("getHealth", "Service", "What the service is and what it trusts.")
        .answers_with(200, object());
    vec![
        Route::get("/certs", certs, keys),
        Route::get("/.well-known/openid-configuration", openid_configuration, configuration),
        Route::get("/health", health, shown).cost(Cost::Probe),
    ]
}

async fn certs(Of(provider): Of) -> Json<JwkSet> {
    Json(provider.signer.jwk_set(super::now()))
}

async fn openid_configuration(Of(provider): Of) -> Json<Value> {
    let issuer = provider.signer.issuer();
    let algorithms = provider.signer.algorithms(super::now());
    Json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/certs"),
        "response_types_supported": ["token", "none"],
        "id_token_signing_alg_values_supported": algorithms,
        "claims_supported": [
            "nonce", "x-ms-ver", "x-ms-attestation-type", "x-ms-compliance-status", "x-ms-policy-hash",
            "x-ms-runtime", "x-ms-inittime", "x-ms-sevsnpvm-authorkeydigest", "x-ms-sevsnpvm-bootloader-svn",
            "x-ms-sevsnpvm-familyId", "x-ms-sevsnpvm-guestsvn", "x-ms-sevsnpvm-hostdata",
            "x-ms-sevsnpvm-idkeydigest", "x-ms-sevsnpvm-imageId", "x-ms-sevsnpvm-is-debuggable",
            "x-ms-sevsnpvm-launchmeasurement", "x-ms-sevsnpvm-microcode-svn", "x-ms-sevsnpvm-migration-allowed",
            "x-ms-sevsnpvm-reportdata", "x-ms-sevsnpvm-reportid", "x-ms-sevsnpvm-smt-allowed",
            "x-ms-sevsnpvm-snpfw-svn", "x-ms-sevsnpvm-tee-svn", "x-ms-sevsnpvm-vmpl",
            "x-casemate-trust-root", "x-casemate-trust-root-id", "x-casemate-nonce-source", "x-casemate-product",
            "x-casemate-chip-id", "x-casemate-reference",
        ],
    }))
}

async fn health(State(service): State<Arc<Service>>) -> Json<Value> {
    let development = service.appraiser.development_roots_allowed();
    let roots = if development { json!(["amd", "development"]) } else { json!(["amd"]) };
    let waiting = service.appraiser.lacks_every_crl();
    Json(json!({
        "status": if waiting { "waiting for a revocation list" } else { "ok" },
        "version": env!("CARGO_PKG_VERSION"),
        "issuer": service.providers.default_provider().signer.issuer(),
        "trustRoots": roots,
        "developmentRootsAllowed": development,
        "providers": service.providers.all().len(),
        "revocationLists": revocation_lists(&service, CrlScope::Vcek),
        "vlekRevocationLists": revocation_lists(&service, CrlScope::Vlek),
        "pinnedRoots": pinned_roots(&service),
        "keyDistributionServices": key_distribution_services(&service),
        "references": service.appraiser.references().names(),
    }))
}

/// SHA-256 of each trusted root's certificate.
fn pinned_roots(service: &Service) -> Value {
    Value::Object(
        service.appraiser.roots().map(|root| (root.to_string(), json!(root.id().to_string()))).collect(),
    )
}

/// Each server, with the reason and the time until which it is left alone.
fn key_distribution_services(service: &Service) -> Value {
    let servers = service.collateral.kds().servers(super::now()).into_iter().map(|(url, rest)| match rest {
        None => json!({"url": url}),
        Some((until, reason)) => {
            json!({"url": url, "restsUntil": snp::UnixTime(until).to_string(), "reason": reason})
        }
    });
    Value::Array(servers.collect())
}

/// Until when the revocation list of each trusted root for a kind of leaf holds; null where there is none.
fn revocation_lists(service: &Service, scope: CrlScope) -> Value {
    let roots = service.appraiser.roots().map(|root| {
        let until = service.appraiser.crl_until(scope, &root.id()).map(|time| time.to_string());
        (root.to_string(), json!(until))
    });
    Value::Object(roots.collect())
}
