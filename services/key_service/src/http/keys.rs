//! `/keys`: making, importing, reading, changing and deleting keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use http_service::gate::Cost;
use http_service::routes::Query;
use http_service::{Access, Operation, Route};
use public_api::key_import::KeyImportParameters;
use public_api::keys::{
    DeletedKeyBundle, KeyBundle, KeyCreateParameters, KeyItem, KeyListResult, KeyUpdateParameters,
};

use super::request::{ApiVersion, Paging, json};
use crate::app::counts::Kind;
use crate::app::keys::KeyRef;
use crate::app::{AppError, AppState};
use crate::store::keys::Among;
use crate::token::access::On;
use crate::token::caller::Caller;
use crate::token::permission::Permission;

/// The service's state, as handlers get it.
pub(super) type Shared = State<Arc<AppState>>;
/// What handlers answer.
pub(super) type Answer<T> = Result<Json<T>, AppError>;
/// The routes of a file.
pub(super) type Routes = Vec<Route<Arc<AppState>>>;

/// Of the routes that Key Vault has for keys.
pub(super) const TAG: &str = "Keys";
/// Every route of Key Vault needs it.
pub(super) const API_VERSION: Query = Query {
    name: "api-version",
    kind: "string",
    required: true,
    description: "7.0 to 7.6, 2025-07-01, or a preview of these; release needs 7.3.",
};
const MAX_RESULTS: Query =
    Query { name: "maxresults", kind: "integer", required: false, description: "1 to 25; 25 if not given." };
const SKIP_TOKEN: Query = Query {
    name: "$skiptoken",
    kind: "string",
    required: false,
    description: "Where the page begins; `nextLink` has it.",
};

/// The routes of this file.
pub fn routes() -> Routes {
    [reading(), changing()].into_iter().flatten().collect()
}

fn operation(id: &'static str, summary: &'static str, permission: Permission) -> Operation {
    Operation::new(id, TAG, summary).access(with(permission)).query(API_VERSION)
}

fn reading() -> Routes {
    let listed = operation("listKeys", "The newest version of each key, by name.", Permission::List);
    let listed = paged(listed).answers::<KeyListResult>().errors(&[400]);
    let versions =
        operation("listKeyVersions", "Every version of a key, the oldest first.", Permission::List)
            .answers::<KeyListResult>()
            .errors(&[400, 404]);
    let shown = operation("getKey", "A key's public part; the newest without a version.", Permission::Get)
        .answers::<KeyBundle>()
        .errors(&[400, 404]);
    vec![
        Route::get("/keys", list, listed),
        Route::get("/keys/{name}/versions", self::versions, versions),
        Route::get("/keys/{name}/{version}", show, shown).also_at(&["/keys/{name}", "/keys/{name}/"]),
    ]
}

fn changing() -> Routes {
    let created = operation("createKey", "Makes a key, or a new version of it.", Permission::Create)
        .takes::<KeyCreateParameters>()
        .answers::<KeyBundle>()
        .errors(&[400, 404, 409]);
    let imported = operation("importKey", "Takes a key that was made elsewhere.", Permission::Import)
        .takes::<KeyImportParameters>()
        .answers::<KeyBundle>()
        .errors(&[400, 404, 409]);
    let updated = operation("updateKey", "Changes what may change of a version.", Permission::Update)
        .takes::<KeyUpdateParameters>()
        .answers::<KeyBundle>()
        .errors(&[400, 404, 409]);
    let deleted =
        operation("deleteKey", "Deletes a key; it can be recovered for some time.", Permission::Delete)
            .answers::<DeletedKeyBundle>()
            .errors(&[400, 404]);
    vec![
        Route::post("/keys/{name}/create", create, created).cost(Cost::Costly),
        Route::put("/keys/{name}", import, imported).cost(Cost::Costly),
        Route::patch("/keys/{name}/{version}", update, updated).also_at(&["/keys/{name}", "/keys/{name}/"]),
        Route::delete("/keys/{name}", delete, deleted),
    ]
}

/// Callers who have the permission.
pub(super) fn with(permission: Permission) -> Access {
    Access::Role(permission.least_role())
}

/// An operation whose answer comes in pages.
pub(super) fn paged(operation: Operation) -> Operation {
    operation.query(MAX_RESULTS).query(SKIP_TOKEN)
}

/// Does the work and counts how it ended.
pub(super) async fn counted<T>(
    state: &AppState,
    kind: Kind,
    work: impl Future<Output = Result<T, AppError>>,
) -> Result<T, AppError> {
    let result = work.await;
    state.counts.ended(kind, &result);
    result
}

async fn create(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    version: ApiVersion,
    request: Request,
) -> Answer<KeyBundle> {
    let work = async {
        state.permit(&caller, Permission::Create, On::Key(&name)).await?;
        let parameters = json(request).await?;
        state.create_key(&caller, &name, parameters, version.releasable).await
    };
    counted(&state, Kind::Create, work).await.map(Json)
}

async fn import(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    version: ApiVersion,
    request: Request,
) -> Answer<KeyBundle> {
    let work = async {
        state.permit(&caller, Permission::Import, On::Key(&name)).await?;
        let parameters = json(request).await?;
        state.import_key(&caller, &name, parameters, version.releasable).await
    };
    counted(&state, Kind::Import, work).await.map(Json)
}

async fn list(
    caller: Caller,
    State(state): Shared,
    version: ApiVersion,
    paging: Paging,
) -> Answer<KeyListResult> {
    state.permit(&caller, Permission::List, On::Vault("keys")).await?;
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

async fn versions(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<KeyListResult> {
    state.permit(&caller, Permission::List, On::Key(&name)).await?;
    Ok(Json(KeyListResult { value: state.versions(&name).await?, next_link: None }))
}

async fn show(caller: Caller, State(state): Shared, key: KeyRef, _version: ApiVersion) -> Answer<KeyBundle> {
    state.permit(&caller, Permission::Get, On::Key(&key.name)).await?;
    Ok(Json(state.key(&key).await?))
}

async fn update(
    caller: Caller,
    State(state): Shared,
    key: KeyRef,
    _version: ApiVersion,
    request: Request,
) -> Answer<KeyBundle> {
    let work = async {
        state.permit(&caller, Permission::Update, On::Key(&key.name)).await?;
        let parameters = json(request).await?;
        state.update_key(&caller, &key, &parameters).await
    };
    counted(&state, Kind::Update, work).await.map(Json)
}

async fn delete(
    caller: Caller,
    State(state): Shared,
    Path(name): Path<String>,
    _version: ApiVersion,
) -> Answer<DeletedKeyBundle> {
    let work = async {
        state.permit(&caller, Permission::Delete, On::Key(&name)).await?;
        state.delete_key(&caller, &name).await
    };
    counted(&state, Kind::Delete, work).await.map(Json)
}
