//! `/keys`: making, importing, reading, changing and deleting keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use public_api::keys::{DeletedKeyBundle, KeyBundle, KeyItem, KeyListResult};

use super::request::{ApiVersion, Paging, json};
use crate::app::keys::KeyRef;
use crate::app::{AppError, AppState};
use crate::store::keys::Among;
use crate::token::caller::{Caller, Permission};

/// The service's state, as handlers get it.
pub(super) type Shared = State<Arc<AppState>>;
/// What handlers answer.
pub(super) type Answer<T> = Result<Json<T>, AppError>;

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

pub async fn import(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    version: ApiVersion,
    request: Request,
) -> Answer<KeyBundle> {
    state.permit(&caller, Permission::Manage, &subject(&name)).await?;
    let parameters = json(request).await?;
    Ok(Json(state.import_key(&caller, &name, parameters, version.releasable).await?))
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

pub async fn show(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    key: KeyRef,
    _version: ApiVersion,
) -> Answer<KeyBundle> {
    state.permit(&caller, Permission::Read, &subject(&key.name)).await?;
    Ok(Json(state.key(&key).await?))
}

pub async fn update(
    State(state): Shared,
    Extension(caller): Extension<Caller>,
    key: KeyRef,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyBundle> {
    state.permit(&caller, Permission::Manage, &subject(&key.name)).await?;
    let parameters = json(request).await?;
    Ok(Json(state.update_key(&caller, &key, &parameters).await?))
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
