//! `/policies/{type}` and what can be done to a policy, `/policies/{type}:{verb}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{QueryRejection, StringRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_service::routes::{Content, Query as QueryParameter};
use http_service::{Access, Operation, Route};
use public_api::attestation::AttestResponse;
use public_api::attestation_policy::{AttestationType, DryRun, PolicyDifference, PolicyVersion};
use serde::Deserialize;

use super::attest::{API_VERSION, not_supported_type};
use super::caller::{Of, ProviderContributor as Contributor, ProviderReader as Reader};
use super::error::{Failure, failure, unread_text};
use crate::app::access::{CONTRIBUTOR, READER};
use crate::app::attest::Service;
use crate::app::policies::{ChangeRequest, Introduction};

/// A body that is a text, or why it is not.
pub type Text = Result<String, StringRejection>;

const TAG: &str = "Policies";
const POLICY: &str = "/policies/{attestationType}";

fn version(name: &'static str, description: &'static str) -> QueryParameter {
    QueryParameter { name, kind: "integer", required: true, description }
}

fn jws() -> Content {
    Content::text("text/plain")
}

/// The routes of policies.
pub fn routes() -> Vec<Route<Arc<Service>>> {
    let operation = |id, summary| Operation::new(id, TAG, summary).errors(&[400, 404]);
    let shown = operation("getPolicy", "The policy that decides, in a signed token.")
        .query(API_VERSION)
        .answers::<AttestResponse>();
    let kept = operation("setPolicy", "Makes a policy decide; its body is a JWS.")
        .access(Access::Role(CONTRIBUTOR))
        .query(API_VERSION)
        .takes_content(jws())
        .answers::<AttestResponse>();
    let versions_told = operation("listPolicyVersions", "Every version that was set.")
        .access(Access::Role(READER))
        .answers::<Vec<PolicyVersion>>();
    let difference_told = operation("comparePolicyVersions", "What differs between two versions.")
        .access(Access::Role(READER))
        .query(version("from", "The older version."))
        .query(version("to", "The newer version."))
        .answers::<PolicyDifference>();
    vec![
        Route::get(POLICY, show, shown),
        Route::put(POLICY, set, kept),
        Route::post_several(POLICY, act, verbs()),
        Route::get("/policies/{attestationType}/versions", versions, versions_told),
        Route::get("/policies/{attestationType}/difference", difference, difference_told),
    ]
}

/// What can be done to a policy.
fn verbs() -> Vec<Operation> {
    let operation = |id, path, summary| {
        let operation = Operation::new(id, TAG, summary).at(path).errors(&[400, 404, 409]);
        operation.access(Access::Role(CONTRIBUTOR))
    };
    vec![
        operation("resetPolicy", "/policies/{attestationType}:reset", "Makes the shipped policy decide.")
            .query(API_VERSION)
            .takes_content(jws())
            .answers::<AttestResponse>(),
        operation(
            "stagePolicy",
            "/policies/{attestationType}:stage",
            "Tries a policy beside the one that decides.",
        )
        .takes_content(jws())
        .answers::<AttestResponse>(),
        operation("promotePolicy", "/policies/{attestationType}:promote", "Makes the staged policy decide.")
            .answers::<AttestResponse>(),
        operation(
            "withdrawPolicy",
            "/policies/{attestationType}:withdraw",
            "Tries the staged policy no longer.",
        )
        .answers::<AttestResponse>(),
        operation(
            "rollBackPolicy",
            "/policies/{attestationType}:rollback",
            "Makes an earlier version decide.",
        )
        .query(version("version", "That version."))
        .answers::<AttestResponse>(),
        operation(
            "dryRunPolicy",
            "/policies/{attestationType}:dryRun",
            "What a policy would say to stored evidence.",
        )
        .access(Access::Role(READER))
        .takes_content(jws())
        .answers::<DryRun>(),
    ]
}

/// The routes of the certificates that sign policies.
pub fn signer_routes() -> Vec<Route<Arc<Service>>> {
    let operation = |id, summary, role| {
        let operation = Operation::new(id, TAG, summary).query(API_VERSION).errors(&[400, 404]);
        operation.access(Access::Role(role)).answers::<AttestResponse>()
    };
    let shown =
        operation("listPolicySigners", "The certificates that sign policies, in a signed token.", READER);
    let added =
        operation("addPolicySigner", "Adds one; its body is a JWS of one that signs already.", CONTRIBUTOR);
    let removed = operation("removePolicySigner", "Removes one; its body is a JWS.", CONTRIBUTOR);
    vec![
        Route::get("/certificates", signers, shown),
        Route::post("/certificates:add", add_signer, added.takes_content(jws())),
        Route::post("/certificates:remove", remove_signer, removed.takes_content(jws())),
    ]
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Versions {
    #[serde(rename = "api-version")]
    _api_version: Option<String>,
    #[serde(default)]
    from: Option<u64>,
    #[serde(default)]
    to: Option<u64>,
    #[serde(default)]
    version: Option<u64>,
}

async fn show(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    Path(kind): Path<String>,
) -> Result<Json<AttestResponse>, Failure> {
    Ok(Json(service.show_policy(&provider, known(&kind)?, super::now())?))
}

async fn set(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    Contributor(caller): Contributor,
    Path(kind): Path<String>,
    body: Text,
) -> Result<Json<AttestResponse>, Failure> {
    let request =
        ChangeRequest { provider: &provider, kind: known(&kind)?, caller: &caller, now: super::now() };
    Ok(Json(service.set_policy(request, &text(body)?, Introduction::Active).await?))
}

/// `POST /policies/{type}:{verb}`. Trying a policy needs the permission to read only.
async fn act(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    Path(kind_and_verb): Path<String>,
    query: Result<Query<Versions>, QueryRejection>,
    request: axum::extract::Request,
) -> Result<Response, Response> {
    let (kind, verb) = kind_and_verb.split_once(':').unwrap_or((&kind_and_verb, ""));
    let kind = known(kind).map_err(IntoResponse::into_response)?;
    let (mut parts, body) = request.into_parts();
    use axum::extract::{FromRequest as _, FromRequestParts as _};
    let caller = match verb {
        "dryrun" => Reader::from_request_parts(&mut parts, &service).await.map(|Reader(id)| id)?,
        _ => Contributor::from_request_parts(&mut parts, &service).await.map(|Contributor(id)| id)?,
    };
    let body = String::from_request(axum::extract::Request::from_parts(parts, body), &service).await;
    let query = query.map_err(|rejection| bad_query(&rejection).into_response())?;
    let request = ChangeRequest { provider: &provider, kind, caller: &caller, now: super::now() };
    done(&service, request, verb, &query, body).await.map_err(IntoResponse::into_response)
}

async fn done(
    service: &Service,
    request: ChangeRequest<'_>,
    verb: &str,
    query: &Versions,
    body: Text,
) -> Result<Response, Failure> {
    Ok(match verb {
        "reset" => Json(service.reset_policy(request, &text(body)?).await?).into_response(),
        "stage" => {
            Json(service.set_policy(request, &text(body)?, Introduction::Staged).await?).into_response()
        }
        "promote" => Json(service.promote_policy(request).await?).into_response(),
        "withdraw" => Json(service.withdraw_policy(request).await?).into_response(),
        "rollback" => {
            Json(service.roll_back_policy(request, needed(query.version, "version")?).await?).into_response()
        }
        "dryrun" => {
            Json(service.dry_run(request.provider, request.kind, &text(body)?).await?).into_response()
        }
        _ => {
            let message = "expected one of :reset, :stage, :promote, :withdraw, :rollback, :dryRun";
            return Err(failure(StatusCode::NOT_FOUND, "NotFound", message));
        }
    })
}

async fn versions(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    _: Reader,
    Path(kind): Path<String>,
) -> Result<Json<Vec<PolicyVersion>>, Failure> {
    Ok(Json(service.policy_history(&provider, known(&kind)?).await?))
}

async fn difference(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    _: Reader,
    Path(kind): Path<String>,
    query: Result<Query<Versions>, QueryRejection>,
) -> Result<Json<PolicyDifference>, Failure> {
    let query = query.map_err(|rejection| bad_query(&rejection))?;
    let (from, to) = (needed(query.from, "from")?, needed(query.to, "to")?);
    Ok(Json(service.policy_difference(&provider, known(&kind)?, from, to).await?))
}

async fn signers(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    _: Reader,
) -> Result<Json<AttestResponse>, Failure> {
    Ok(Json(service.show_policy_signers(&provider, super::now())?))
}

async fn add_signer(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    Contributor(caller): Contributor,
    body: Text,
) -> Result<Json<AttestResponse>, Failure> {
    let request = signers_request(&provider, &caller);
    Ok(Json(service.add_policy_signer(request, &text(body)?).await?))
}

async fn remove_signer(
    State(service): State<Arc<Service>>,
    Of(provider): Of,
    Contributor(caller): Contributor,
    body: Text,
) -> Result<Json<AttestResponse>, Failure> {
    let request = signers_request(&provider, &caller);
    Ok(Json(service.remove_policy_signer(request, &text(body)?).await?))
}

/// Policy signers are of a provider, not of an attestation type.
fn signers_request<'a>(
    provider: &'a Arc<crate::app::provider::Provider>,
    caller: &'a str,
) -> ChangeRequest<'a> {
    ChangeRequest { provider, kind: AttestationType::SevSnpVm, caller, now: super::now() }
}

fn known(kind: &str) -> Result<AttestationType, Failure> {
    AttestationType::from_name(kind).ok_or_else(|| not_supported_type(kind))
}

pub fn text(body: Text) -> Result<String, Failure> {
    body.map_err(|rejection| unread_text(&rejection))
}

fn bad_query(rejection: &QueryRejection) -> Failure {
    failure(StatusCode::BAD_REQUEST, "InvalidParameter", rejection.body_text())
}

fn needed(value: Option<u64>, name: &str) -> Result<u64, Failure> {
    value.ok_or_else(|| {
        failure(
            StatusCode::BAD_REQUEST,
            "InvalidParameter",
            format!("the query parameter `{name}` is missing"),
        )
    })
}
