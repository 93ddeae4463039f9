//! Errors as answers: `{"error":{"code","message",...}}`, with the denial where something was refused.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_service::gate::DenialCode;
use public_api::denial::ErrorBody;

use crate::app::reset::ResetRefused;
use crate::app::{AppError, refusals};
use crate::chain;
use crate::hsm::HsmError;
use crate::token::caller::Caller;

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let message = self.to_string();
        match self {
            AppError::Denied(denial) => {
                answer(StatusCode::FORBIDDEN, ErrorBody::denied("Forbidden", *denial))
            }
            AppError::NotReset(refused) => not_reset(refused),
            AppError::BadToken(denial) => {
                answer(StatusCode::UNAUTHORIZED, ErrorBody::denied("Unauthorized", *denial))
            }
            AppError::NoToken => plain(StatusCode::UNAUTHORIZED, "Unauthorized", message),
            AppError::BadParameter { target, .. } => {
                let mut body = ErrorBody::new("BadParameter", message);
                body.error.target = Some(target);
                answer(StatusCode::BAD_REQUEST, body)
            }
            AppError::KeyNotFound(_) => plain(StatusCode::NOT_FOUND, "KeyNotFound", message),
            AppError::Conflict(_) => plain(StatusCode::CONFLICT, "Conflict", message),
            AppError::VaultNotFound(_) => plain(StatusCode::NOT_FOUND, "VaultNotFound", message),
            AppError::VaultConflict { code, .. } => plain(StatusCode::CONFLICT, code, message),
            AppError::Vault(_) => internal(&self),
            AppError::BodyTooLarge => plain(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", message),
            AppError::BodyIncomplete => plain(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message),
            AppError::IssuerUnavailable(_) => unavailable(&self, chain(&self)),
            AppError::Store(ref error) if error.is_absence() => unavailable(&self, message),
            AppError::Hsm(ref error) => of_hsm(&self, error),
            AppError::Store(_)
            | AppError::Seal(_)
            | AppError::Key(_)
            | AppError::Policy(_)
            | AppError::Worker(_) => internal(&self),
        }
    }
}

fn not_reset(refused: ResetRefused) -> Response {
    let (status, denial) = match refused {
        ResetRefused::Unknown(denial) => (StatusCode::NOT_FOUND, denial),
        ResetRefused::Moved(denial) => (StatusCode::CONFLICT, denial),
        ResetRefused::NotLower(denial) => (StatusCode::BAD_REQUEST, denial),
    };
    answer(status, ErrorBody::denied(denial.code.clone(), *denial))
}

/// The answer for a path that does not exist.
pub async fn no_such_path() -> Response {
    plain(StatusCode::NOT_FOUND, "NotFound", "there is nothing at this path".to_owned())
}

/// The answer where no vault is. It is the same for a name that never was, one that is deleted and one that cannot be.
pub async fn no_such_vault() -> Response {
    let message = "there is no vault at this host".to_owned();
    plain(StatusCode::NOT_FOUND, "VaultNotFound", message)
}

/// The answer for a method that the path does not have; as everywhere, whoever calls says who they are before.
pub async fn unknown_method(_: Caller) -> Response {
    method_not_allowed()
}

/// The same for a caller who is known.
pub fn method_not_allowed() -> Response {
    let message = "this path does not have this method".to_owned();
    plain(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
}

fn unavailable(error: &AppError, message: String) -> Response {
    tracing::warn!(error = chain(error), "what a request needs is not available");
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// What a token cannot do is the request's fault, a silent one nobody's, and an object that is not there the operator's.
fn of_hsm(error: &AppError, cause: &HsmError) -> Response {
    if cause.is_unavailable() {
        return unavailable(error, chain(error));
    }
    let Some(denial) = refusals::of_hsm(cause) else { return internal(error) };
    let status = match cause {
        HsmError::Unsupported { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    tracing::warn!(error = chain(error), "the HSM cannot do what a request needs");
    answer(status, ErrorBody::denied(denial.code.clone(), *denial))
}

fn internal(error: &AppError) -> Response {
    tracing::error!(error = chain(error), "a request failed");
    plain(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", error.to_string())
}

fn plain(status: StatusCode, code: &str, message: String) -> Response {
    answer(status, ErrorBody::new(code, message))
}

/// An answer whose denial is counted.
pub fn answer(status: StatusCode, body: ErrorBody) -> Response {
    let code = body.error.denial.as_ref().map(|denial| DenialCode(denial.code.clone()));
    let mut response = (status, axum::Json(body)).into_response();
    if let Some(code) = code {
        response.extensions_mut().insert(code);
    }
    response
}
