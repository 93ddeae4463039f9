//! `POST /keys/{name}[/{version}]/{operation}`: using a key.

use axum::Json;
use axum::extract::{Request, State};
use http_service::{Operation as Documented, Route};
use public_api::key_operations::{
    KeyOperationParameters, KeyOperationResult, KeySignParameters, KeyVerifyParameters, KeyVerifyResult,
};

use super::keys::{API_VERSION, Answer, Routes, Shared, TAG, counted, subject, with};
use super::request::{ApiVersion, json};
use crate::app::AppState;
use crate::app::counts::Kind;
use crate::app::keys::KeyRef;
use crate::app::operate::Operation;
use crate::token::caller::{Caller, Permission};

/// A path with its further spellings: the newest version is meant where none is named.
macro_rules! using {
    ($operation:literal, $handler:ident, $documented:expr) => {
        Route::post(concat!("/keys/{name}/{version}/", $operation), $handler, $documented)
            .also_at(&[concat!("/keys/{name}/", $operation), concat!("/keys/{name}//", $operation)])
    };
}
pub(super) use using;

/// The routes of this file.
pub fn routes() -> Routes {
    let used = |id, summary| {
        Documented::new(id, TAG, summary)
            .access(with(Permission::Use))
            .query(API_VERSION)
            .errors(&[400, 403, 404])
    };
    let cipher =
        |id, summary| used(id, summary).takes::<KeyOperationParameters>().answers::<KeyOperationResult>();
    let signed = used("sign", "Signs a digest.").takes::<KeySignParameters>().answers::<KeyOperationResult>();
    let verified = used("verify", "Whether a signature of a digest holds.")
        .takes::<KeyVerifyParameters>()
        .answers::<KeyVerifyResult>();
    vec![
        using!("encrypt", encrypt, cipher("encrypt", "Encrypts a value.")),
        using!("decrypt", decrypt, cipher("decrypt", "Decrypts a value.")),
        using!("wrapkey", wrap, cipher("wrapKey", "Encrypts a key.")),
        using!("unwrapkey", unwrap, cipher("unwrapKey", "Decrypts a key.")),
        using!("sign", sign, signed),
        using!("verify", verify, verified),
    ]
}

async fn cipher(
    state: &AppState,
    caller: &Caller,
    key: &KeyRef,
    operation: Operation,
    request: Request,
) -> Answer<KeyOperationResult> {
    let work = async {
        state.permit(caller, Permission::Use, &subject(&key.name)).await?;
        let parameters = json(request).await?;
        state.cipher(caller, key, operation, parameters).await
    };
    counted(state, Kind::of(operation), work).await.map(Json)
}

macro_rules! ciphers {
    ($($name:ident, $operation:ident;)*) => {$(
        async fn $name(
            caller: Caller,
            State(state): Shared,
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

async fn sign(
    caller: Caller,
    State(state): Shared,
    key: KeyRef,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyOperationResult> {
    let work = async {
        state.permit(&caller, Permission::Use, &subject(&key.name)).await?;
        let parameters = json(request).await?;
        state.sign(&caller, &key, parameters).await
    };
    counted(&state, Kind::Sign, work).await.map(Json)
}

async fn verify(
    caller: Caller,
    State(state): Shared,
    key: KeyRef,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyVerifyResult> {
    let work = async {
        state.permit(&caller, Permission::Use, &subject(&key.name)).await?;
        let parameters = json(request).await?;
        state.verify(&caller, &key, parameters).await
    };
    counted(&state, Kind::Verify, work).await.map(Json)
}
