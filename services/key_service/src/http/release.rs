//! `POST /keys/{name}[/{version}]/release`.

use axum::Json;
use axum::extract::{Request, State};
use http_service::gate::Cost;
use http_service::{Operation, Route};
use public_api::keys::{KeyReleaseParameters, KeyReleaseResult};

use super::keys::{API_VERSION, Answer, Routes, Shared, TAG, counted, with};
use super::request::{ApiVersion, json};
use super::use_key::using;
use crate::app::AppError;
use crate::app::counts::Kind;
use crate::app::keys::KeyRef;
use crate::token::access::On;
use crate::token::caller::Caller;
use crate::token::permission::Permission;

/// The routes of this file.
pub fn routes() -> Routes {
    let operation = Operation::new("release", TAG, "The private key, wrapped to who proved what it is.")
        .access(with(Permission::Release))
        .query(API_VERSION)
        .takes::<KeyReleaseParameters>()
        .answers::<KeyReleaseResult>()
        .errors(&[400, 404]);
    vec![using!("release", release, operation).cost(Cost::Costly)]
}

async fn release(
    caller: Caller,
    State(state): Shared,
    key: KeyRef,
    version: ApiVersion,
    request: Request,
) -> Answer<KeyReleaseResult> {
    let work = async {
        state.permit(&caller, Permission::Release, On::Key(&key.name)).await?;
        if !version.releasable {
            return Err(AppError::bad("api-version", "release needs api-version 7.3 or later"));
        }
        let parameters = json(request).await?;
        state.release_key(&caller, &key, parameters, version.as_str()).await
    };
    counted(&state, Kind::Release, work).await.map(Json)
}
