//! `POST /rng`: random bytes.

use axum::Json;
use axum::extract::{Request, State};
use http_service::{Operation, Route};
use public_api::key_operations::{GetRandomBytesRequest, RandomBytes};

use super::keys::{API_VERSION, Answer, Routes, Shared, TAG, counted, with};
use super::request::{ApiVersion, json};
use crate::app::counts::Kind;
use crate::app::random;
use crate::token::access::On;
use crate::token::caller::Caller;
use crate::token::permission::Permission;

/// The routes of this file.
pub fn routes() -> Routes {
    let operation = Operation::new("getRandomBytes", TAG, "Up to 128 random bytes.")
        .access(with(Permission::Random))
        .query(API_VERSION)
        .takes::<GetRandomBytesRequest>()
        .answers::<RandomBytes>()
        .errors(&[400]);
    vec![Route::post("/rng", bytes, operation)]
}

async fn bytes(
    caller: Caller,
    State(state): Shared,
    _version: ApiVersion,
    request: Request,
) -> Answer<RandomBytes> {
    let work = async {
        state.permit(&caller, Permission::Random, On::Vault("rng")).await?;
        random::bytes(json(request).await?)
    };
    counted(&state, Kind::Random, work).await.map(Json)
}
