//! Who calls, as the first argument of a handler. A request without a token gets the challenge before anything of it is
//! looked at, because Azure's clients send their first request empty and learn from the answer where tokens come from.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use http_service::Admission;
use public_api::denial::ErrorBody;
use token_verifier::TokenError;

use super::error::answer;
use crate::app::{AppError, AppState};
use crate::token::caller::Caller;

impl FromRequestParts<Arc<AppState>> for Caller {
    type Rejection = Response;

    /// The request is charged to the caller, or to its address where the token is not good.
    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Response> {
        let caller = verified(state, &parts.headers).await;
        Admission::settle(parts, caller.as_ref().ok().map(Self::id)).map_err(|refusal| *refusal)?;
        caller.map_err(|error| refused(state, error))
    }
}

async fn verified(state: &AppState, headers: &HeaderMap) -> Result<Caller, AppError> {
    let token = bearer(headers).ok_or(AppError::NoToken)?;
    state.callers.verify(token, state.now()).await.map_err(|error| match error {
        TokenError::Refused(denial) => AppError::BadToken(denial),
        unavailable => AppError::IssuerUnavailable(unavailable),
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    token_verifier::bearer::token_of(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

fn refused(state: &AppState, error: AppError) -> Response {
    match error {
        error @ AppError::NoToken => challenge(state, ErrorBody::new("Unauthorized", error.to_string())),
        AppError::BadToken(denial) => challenge(state, ErrorBody::denied("Unauthorized", *denial)),
        other => other.into_response(),
    }
}

fn challenge(state: &AppState, body: ErrorBody) -> Response {
    let mut response = answer(StatusCode::UNAUTHORIZED, body);
    if let Ok(value) = HeaderValue::from_str(&state.challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}
