//! `/keys`: Key Vault's routes for keys, with and without a version.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use public_api::keys::{
    DeletedKeyBundle, KeyBundle, KeyItem, KeyListResult, KeyOperationResult, KeyReleaseResult,
};

use super::request::{ApiVersion, Paging, json};
use crate::app::keys::KeyRef;
use crate::app::{AppError, AppState};
use crate::store::keys::Among;
use crate::token::caller::{Caller, Permission};

type Shared = State<Arc<AppState>>;
type Answer<T> = Result<Json<T>, AppError>;

fn newest_of(name: String) -> KeyRef {
    KeyRef { name, version: None }
}

fn version_of((name, version): (String, String)) -> KeyRef {
    KeyRef { name, version: Some(version) }
}

/// What the log calls a key before it is known to exist.
pub(super) fn subject(name: &str) -> String {
    format!("keys/{}", token_verifier::shown(name))
}

pub async fn create(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    version: ApiVersion,
    request: Request,
) -> Answer<KeyBundle> {
    state.permit(&caller, Permission::Manage, &subject(&name)).await?;
    let parameters = json(request).await?;
    Ok(Json(state.create_key(&caller, &name, parameters, version.releasable).await?))
}

pub async fn list(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    version: ApiVersion,
    paging: Paging,
) -> Answer<KeyListResult> {
    state.permit(&caller, Permission::List, "keys").await?;
    let items = state.keys(Among::Live, &paging.after, paging.limit).await?;
    Ok(Json(page(&state, "keys", items, &paging, &version)))
}

/// One page; a full one links to the next.
pub(super) fn page(
    state: &AppState,
    path: &str,
    items: Vec<(String, KeyItem)>,
    paging: &Paging,
    version: &ApiVersion,
) -> KeyListResult {
    let full = items.len() == paging.limit as usize;
    let next_link = items.last().filter(|_| full).map(|(name, _)| {
        let (base, version, limit) = (&state.base_url, version.as_str(), paging.limit);
        format!("{base}/{path}?api-version={version}&maxresults={limit}&$skiptoken={name}")
    });
    KeyListResult { value: items.into_iter().map(|(_, item)| item).collect(), next_link }
}

pub async fn versions(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<KeyListResult> {
    state.permit(&caller, Permission::List, &subject(&name)).await?;
    Ok(Json(KeyListResult { value: state.versions(&name).await?, next_link: None }))
}

async fn show(state: &AppState, caller: &Caller, key: KeyRef) -> Answer<KeyBundle> {
    state.permit(caller, Permission::Read, &subject(&key.name)).await?;
    Ok(Json(state.key(&key).await?))
}

pub async fn newest(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<KeyBundle> {
    show(&state, &caller, newest_of(name)).await
}

pub async fn version(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<(String, String)>,
    _version: ApiVersion,
) -> Answer<KeyBundle> {
    show(&state, &caller, version_of(path)).await
}

async fn update(state: &AppState, caller: &Caller, key: KeyRef, request: Request) -> Answer<KeyBundle> {
    state.permit(caller, Permission::Manage, &subject(&key.name)).await?;
    let parameters = json(request).await?;
    Ok(Json(state.update_key(caller, &key, &parameters).await?))
}

pub async fn update_newest(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyBundle> {
    update(&state, &caller, newest_of(name), request).await
}

pub async fn update_version(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<(String, String)>,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyBundle> {
    update(&state, &caller, version_of(path), request).await
}

pub async fn delete(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<DeletedKeyBundle> {
    state.permit(&caller, Permission::Manage, &subject(&name)).await?;
    Ok(Json(state.delete_key(&caller, &name).await?))
}

async fn release(
    state: &AppState,
    caller: &Caller,
    key: KeyRef,
    version: &ApiVersion,
    request: Request,
) -> Answer<KeyReleaseResult> {
    state.permit(caller, Permission::Release, &subject(&key.name)).await?;
    if !version.releasable {
        return Err(AppError::bad("api-version", "release needs api-version 7.3 or later"));
    }
    let parameters = json(request).await?;
    Ok(Json(state.release_key(caller, &key, parameters, version.as_str()).await?))
}

pub async fn release_newest(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    version: ApiVersion,
    request: Request,
) -> Answer<KeyReleaseResult> {
    release(&state, &caller, newest_of(name), &version, request).await
}

pub async fn release_version(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<(String, String)>,
    version: ApiVersion,
    request: Request,
) -> Answer<KeyReleaseResult> {
    release(&state, &caller, version_of(path), &version, request).await
}

async fn wrap(
    state: &AppState,
    caller: &Caller,
    key: KeyRef,
    request: Request,
) -> Answer<KeyOperationResult> {
    state.permit(caller, Permission::Use, &subject(&key.name)).await?;
    let parameters = json(request).await?;
    Ok(Json(state.wrap_key(caller, &key, parameters).await?))
}

pub async fn wrap_newest(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyOperationResult> {
    wrap(&state, &caller, newest_of(name), request).await
}

pub async fn wrap_version(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<(String, String)>,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyOperationResult> {
    wrap(&state, &caller, version_of(path), request).await
}

async fn unwrap(
    state: &AppState,
    caller: &Caller,
    key: KeyRef,
    request: Request,
) -> Answer<KeyOperationResult> {
    state.permit(caller, Permission::Use, &subject(&key.name)).await?;
    let parameters = json(request).await?;
    Ok(Json(state.unwrap_key(caller, &key, parameters).await?))
}

pub async fn unwrap_newest(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyOperationResult> {
    unwrap(&state, &caller, newest_of(name), request).await
}

pub async fn unwrap_version(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(path): Path<(String, String)>,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyOperationResult> {
    unwrap(&state, &caller, version_of(path), request).await
}
