//! Who calls. A request without a token gets the challenge before anything of it is looked at, because Azure's clients
//! send their first request empty and learn from the answer where tokens come from.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use public_api::denial::ErrorBody;

use crate::app::{AppError, AppState};
use crate::token::caller::Caller;
use token_verifier::TokenError;

/// Verifies the bearer token and hands the caller on to the handler.
pub async fn authenticate(State(state): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    match caller(&state, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error @ AppError::NoToken) => {
            challenge(&state, &ErrorBody::new("Unauthorized", error.to_string()))
        }
        Err(AppError::BadToken(denial)) => challenge(&state, &ErrorBody::denied("Unauthorized", *denial)),
        Err(other) => other.into_response(),
    }
}

async fn caller(state: &AppState, headers: &HeaderMap) -> Result<Caller, AppError> {
    let token = bearer(headers).ok_or(AppError::NoToken)?;
    state.callers.verify(token, state.now()).await.map_err(|error| match error {
        TokenError::Refused(denial) => AppError::BadToken(denial),
        unavailable => AppError::IssuerUnavailable(unavailable),
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    token_verifier::bearer::token_of(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

fn challenge(state: &AppState, body: &ErrorBody) -> Response {
    let mut response = (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
    if let Ok(value) = HeaderValue::from_str(&state.challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}
