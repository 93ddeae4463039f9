//! From errors to the envelope `{"error":{"code","message",...}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, IntoResponseParts, Response};
use http_service::gate::DenialCode;
use public_api::denial::ErrorBody;

use crate::app::attest::AttestError;
use crate::app::draft::DraftError;
use crate::app::fields::FieldError;
use crate::app::policies::PolicyChangeError;
use crate::app::providers::ProviderError;

/// An answer that is not a success.
pub struct Failure(StatusCode, Box<ErrorBody>, Option<u64>);

/// An answer with a code and a message.
pub fn failure(status: StatusCode, code: &str, message: impl Into<String>) -> Failure {
    Failure(status, Box::new(ErrorBody::new(code, message)), None)
}

/// An answer with a denial.
pub fn denied(status: StatusCode, code: &str, denial: public_api::Denial) -> Failure {
    Failure(status, Box::new(ErrorBody::denied(code, denial)), None)
}

/// What is refused now and may be permitted after so many seconds.
pub fn unavailable(denial: public_api::Denial, retry_after: u64) -> Failure {
    let body = ErrorBody::denied("CollateralUnavailable", denial);
    Failure(StatusCode::SERVICE_UNAVAILABLE, Box::new(body), Some(retry_after))
}

/// A fault of ours: logged with its causes, told without them.
pub fn fault(error: &dyn std::error::Error) -> Failure {
    tracing::error!(error = %crate::chain(error), "a request failed");
    failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "the service could not carry out the request")
}

/// A body that is longer than accepted, or did not arrive whole.
pub fn unread_body(rejection: &axum::extract::rejection::BytesRejection) -> Failure {
    let (status, body) = http_service::body::unread(rejection.status(), rejection);
    Failure(status, Box::new(body), None)
}

/// The same of a body that is a text.
pub fn unread_text(rejection: &axum::extract::rejection::StringRejection) -> Failure {
    use axum::extract::rejection::StringRejection;
    if let StringRejection::InvalidUtf8(problem) = rejection {
        return failure(problem.status(), "InvalidRequest", problem.body_text());
    }
    let (status, body) = http_service::body::unread(rejection.status(), rejection);
    Failure(status, Box::new(body), None)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let retry_after = self.2.map(|seconds| [(RETRY_AFTER, seconds.to_string())]);
        answer(self.0, *self.1, retry_after)
    }
}

/// An answer whose denial is counted.
pub fn answer(status: StatusCode, body: ErrorBody, headers: impl IntoResponseParts) -> Response {
    let code = body.error.denial.as_ref().map(|denial| DenialCode(denial.code.clone()));
    let mut response = (status, headers, Json(body)).into_response();
    if let Some(code) = code {
        response.extensions_mut().insert(code);
    }
    response
}

impl From<FieldError> for Failure {
    fn from(error: FieldError) -> Self {
        let mut body = ErrorBody::new("InvalidParameter", error.to_string());
        body.error.target = Some(error.path);
        Self(StatusCode::BAD_REQUEST, Box::new(body), None)
    }
}

impl From<AttestError> for Failure {
    fn from(error: AttestError) -> Self {
        match error {
            AttestError::Denied(denial) => denied(StatusCode::BAD_REQUEST, "AttestationDenied", *denial),
            AttestError::Draft(DraftError::Denied(denial)) => {
                denied(StatusCode::BAD_REQUEST, "PolicyEvaluationError", *denial)
            }
            AttestError::Unavailable { denial, retry_after } => unavailable(*denial, retry_after),
            AttestError::Draft(error) => {
                FieldError::new("draftPolicyForAttestation", error.to_string()).into()
            }
            AttestError::Store(_)
            | AttestError::Signer(_)
            | AttestError::Seal(_)
            | AttestError::AkAuthority(_) => fault(&error),
        }
    }
}

impl From<PolicyChangeError> for Failure {
    fn from(error: PolicyChangeError) -> Self {
        match error {
            PolicyChangeError::Form(error) => error.into(),
            PolicyChangeError::Refused(denial) => {
                denied(StatusCode::BAD_REQUEST, "InvalidOperation", *denial)
            }
            PolicyChangeError::Policy(error) => failure(
                StatusCode::BAD_REQUEST,
                "InvalidPolicy",
                format!("the policy cannot be read: {error}"),
            ),
            error @ PolicyChangeError::NoVersion(_) => {
                failure(StatusCode::NOT_FOUND, "PolicyVersionNotFound", error.to_string())
            }
            error @ PolicyChangeError::NothingStaged => {
                failure(StatusCode::CONFLICT, "NoStagedPolicy", error.to_string())
            }
            error @ (PolicyChangeError::Store(_) | PolicyChangeError::Signer(_)) => fault(&error),
        }
    }
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        let message = error.to_string();
        match error {
            ProviderError::Form(error) => error.into(),
            ProviderError::Exists(_) => failure(StatusCode::CONFLICT, "ProviderExists", message),
            ProviderError::NotFound(_) => failure(StatusCode::NOT_FOUND, "ProviderNotFound", message),
            ProviderError::IsDefault => failure(StatusCode::BAD_REQUEST, "InvalidOperation", message),
            ProviderError::TooMany => failure(StatusCode::CONFLICT, "ProvidersTooMany", message),
            ProviderError::Policy(error) => error.into(),
        }
    }
}
