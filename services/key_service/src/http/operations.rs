//! `POST /keys/{name}[/{version}]/{operation}`: using a key.

use axum::Json;
use axum::extract::{Extension, Request, State};
use public_api::key_operations::{KeyOperationResult, KeyVerifyResult};

use super::keys::{Answer, Shared, subject};
use super::request::{ApiVersion, json};
use crate::app::AppState;
use crate::app::keys::KeyRef;
use crate::app::operate::Operation;
use crate::token::caller::{Caller, Permission};

async fn cipher(
    state: &AppState,
    caller: &Caller,
    key: &KeyRef,
    operation: Operation,
    request: Request,
) -> Answer<KeyOperationResult> {
    state.permit(caller, Permission::Use, &subject(&key.name)).await?;
    let parameters = json(request).await?;
    Ok(Json(state.cipher(caller, key, operation, parameters).await?))
}

macro_rules! ciphers {
    ($($name:ident, $operation:ident;)*) => {$(
        pub async fn $name(
            State(state): Shared,
            Extension(caller): Extension<Caller>,
            key: KeyRef,
            _version: ApiVersion,
            request: Request,
        ) -> Answer<KeyOperationResult> {
            cipher(&state, &caller, &key, Operation::$operation, request).await
        }
    )*};
}

ciphers! {
    encrypt, Encrypt;
    decrypt, Decrypt;
    wrap, Wrap;
    unwrap, Unwrap;
}

pub async fn sign(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    key: KeyRef,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyOperationResult> {
    state.permit(&caller, Permission::Use, &subject(&key.name)).await?;
    let parameters = json(request).await?;
    Ok(Json(state.sign(&caller, &key, parameters).await?))
}

pub async fn verify(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    key: KeyRef,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyVerifyResult> {
    state.permit(&caller, Permission::Use, &subject(&key.name)).await?;
    let parameters = json(request).await?;
    Ok(Json(state.verify(&caller, &key, parameters).await?))
}
