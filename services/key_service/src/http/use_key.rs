//! `POST /keys/{name}[/{version}]/{operation}`: using a key.

use axum::Json;
use axum::extract::{Request, State};
use http_service::{Operation as Documented, Route};
use public_api::key_operations::{
    KeyOperationParameters, KeyOperationResult, KeySignParameters, KeyVerifyParameters, KeyVerifyResult,
};

use super::keys::{API_VERSION, Answer, Routes, Shared, TAG, counted, with};
use super::request::{ApiVersion, json};
use crate::app::AppState;
use crate::app::counts::Kind;
use crate::app::keys::KeyRef;
use crate::app::operate::Operation;
use crate::token::access::On;
use crate::token::caller::Caller;
use crate::token::permission::Permission;

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
    let used = |id, summary, permission| {
        Documented::new(id, TAG, summary).access(with(permission)).query(API_VERSION).errors(&[400, 403, 404])
    };
    let cipher = |id, summary, permission| {
        let operation = used(id, summary, permission);
        operation.takes::<KeyOperationParameters>().answers::<KeyOperationResult>()
    };
    let signed = used("sign", "Signs a digest.", Permission::Sign);
    let signed = signed.takes::<KeySignParameters>().answers::<KeyOperationResult>();
    let verified = used("verify", "Whether a signature of a digest holds.", Permission::Verify)
        .takes::<KeyVerifyParameters>()
        .answers::<KeyVerifyResult>();
    vec![
        using!("encrypt", encrypt, cipher("encrypt", "Encrypts a value.", Permission::Encrypt)),
        using!("decrypt", decrypt, cipher("decrypt", "Decrypts a value.", Permission::Decrypt)),
        using!("wrapkey", wrap, cipher("wrapKey", "Encrypts a key.", Permission::WrapKey)),
        using!("unwrapkey", unwrap, cipher("unwrapKey", "Decrypts a key.", Permission::UnwrapKey)),
        using!("sign", sign, signed),
        using!("verify", verify, verified),
    ]
}

fn permission(operation: Operation) -> Permission {
    match operation {
        Operation::Encrypt => Permission::Encrypt,
        Operation::Decrypt => Permission::Decrypt,
        Operation::Wrap => Permission::WrapKey,
        Operation::Unwrap => Permission::UnwrapKey,
        Operation::Sign => Permission::Sign,
        Operation::Verify => Permission::Verify,
    }
}

async fn cipher(
    state: &AppState,
    caller: &Caller,
    key: &KeyRef,
    operation: Operation,
    request: Request,
) -> Answer<KeyOperationResult> {
    let work = async {
        state.permit(caller, permission(operation), On::Key(&key.name)).await?;
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
        state.permit(&caller, Permission::Sign, On::Key(&key.name)).await?;
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
        state.permit(&caller, Permission::Verify, On::Key(&key.name)).await?;
        let parameters = json(request).await?;
        state.verify(&caller, &key, parameters).await
    };
    counted(&state, Kind::Verify, work).await.map(Json)
}
