//! The shapes of answers: JSON, asynchronous operations, errors, and the headers that Resource Manager always sends.

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, STRICT_TRANSPORT_SECURITY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::{App, Call};
use crate::app::operations::Begun;
use crate::app::refusal::{Kind, Refusal};

const ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");

/// A JSON answer.
pub fn json(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// 200 with JSON.
pub fn ok(value: &Value) -> Response {
    json(StatusCode::OK, value)
}

/// 201 if it is new, else 200.
pub fn written(value: &Value, created: bool) -> Response {
    json(if created { StatusCode::CREATED } else { StatusCode::OK }, value)
}

/// `{"value": [...]}`.
pub fn list(values: Vec<Value>) -> Response {
    ok(&json!({"value": values}))
}

/// No body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// 200 if something was removed, 204 if it was not there.
pub fn removed(was_there: bool) -> Response {
    empty(if was_there { StatusCode::OK } else { StatusCode::NO_CONTENT })
}

/// Adds the headers by which clients follow an operation.
pub fn follow(app: &App, call: &Call, begun: &Begun, mut response: Response) -> Response {
    let (base, region) = (&app.config.public_url, &app.config.region);
    let status = format!(
        "{base}/subscriptions/{}/providers/Microsoft.Compute/locations/{region}/operations/{}?api-version={}",
        begun.subscription, begun.id, call.version
    );
    let headers = response.headers_mut();
    put(headers, LOCATION, &format!("{status}&monitor=true"));
    put(headers, ASYNC_OPERATION, &status);
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// 202 without a body.
pub fn accepted(app: &App, call: &Call, begun: &Begun) -> Response {
    follow(app, call, begun, empty(StatusCode::ACCEPTED))
}

/// An error.
pub fn refusal(app: &App, refusal: &Refusal) -> Response {
    let body = serde_json::to_value(refusal.body()).expect("the type has only string keys");
    let mut response = json(status(refusal.kind), &body);
    if refusal.kind == Kind::Unauthorized {
        let challenge = format!(
            "Bearer authorization_uri=\"{}/{}\", error=\"invalid_token\", error_description=\"{}\"",
            app.config.public_url,
            app.directory.home(),
            refusal.message.replace('"', "'")
        );
        put(response.headers_mut(), WWW_AUTHENTICATE, &challenge);
    }
    response
}

fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::BadRequest => StatusCode::BAD_REQUEST,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Headers of every answer.
pub fn finish(mut response: Response) -> Response {
    let id = uuid::Uuid::new_v4().to_string();
    let headers = response.headers_mut();
    put(headers, HeaderName::from_static("x-ms-request-id"), &id);
    put(headers, HeaderName::from_static("x-ms-correlation-request-id"), &id);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers
        .insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000; includeSubDomains"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
