//! `/casemate/vaults` and `/casemate/deletedvaults`: named vaults, for the control plane. These routes are the default vault's
//! alone, and the role that they need says nothing about keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use http_service::gate::Cost;
use http_service::routes::{Content, Query};
use http_service::{Operation, Route};
use public_api::vaults::{VaultResource, VaultSettings, VaultView};

use super::error::no_such_path;
use super::keys::{Answer, Routes, with};
use super::request::{strict_json, text};
use crate::app::{AppError, AppState};
use crate::token::access::On;
use crate::token::caller::Caller;
use crate::token::permission::Permission;
use crate::vaults::Vaults;

const TAG: &str = "Named vaults";
const INCARNATION: Query = Query {
    name: "incarnation",
    kind: "string",
    required: true,
    description: "Of the resource that the vault belongs to.",
};

/// The routes of this file.
pub fn routes() -> Routes {
    let operation = |id, summary| Operation::new(id, TAG, summary).access(with(Permission::ManageVaults));
    let put = operation("putVault", "Makes a vault, or changes what may change of it.")
        .takes::<VaultSettings>()
        .answers::<VaultView>()
        .answers_with(201, Some(Content::json::<VaultView>()))
        .errors(&[400, 404, 409]);
    let shown = operation("getVault", "A live vault.").answers::<VaultView>().errors(&[404]);
    let deleted = operation("deleteVault", "Deletes a vault; it can be recovered for some time.")
        .query(INCARNATION)
        .answers::<VaultView>()
        .errors(&[400, 404, 409]);
    let listed = operation("listVaults", "Live vaults, by name.").answers::<Vec<VaultView>>().errors(&[404]);
    let gone = operation("listDeletedVaults", "Deleted vaults, by name.");
    let gone = gone.answers::<Vec<VaultView>>().errors(&[404]);
    let one = operation("getDeletedVault", "A deleted vault.").answers::<VaultView>().errors(&[404]);
    let recovered = operation("recoverVault", "A deleted vault is live again.")
        .takes::<VaultResource>()
        .answers::<VaultView>()
        .errors(&[400, 404, 409]);
    let purged = operation("purgeVault", "Destroys a deleted vault with all its keys.")
        .query(INCARNATION)
        .answers_with(204, None)
        .errors(&[400, 404, 409]);
    vec![
        Route::get("/casemate/vaults", list, listed),
        Route::put("/casemate/vaults/{name}", self::put, put).cost(Cost::Costly),
        Route::get("/casemate/vaults/{name}", show, shown),
        Route::delete("/casemate/vaults/{name}", delete, deleted),
        Route::get("/casemate/deletedvaults", list_deleted, gone),
        Route::get("/casemate/deletedvaults/{name}", show_deleted, one),
        Route::delete("/casemate/deletedvaults/{name}", purge, purged),
        Route::post("/casemate/deletedvaults/{name}/recover", recover, recovered),
    ]
}

/// A caller who may manage vaults, and the vaults: where there are none, there is nothing at these paths.
struct Manager {
    caller: Caller,
    vaults: Arc<Vaults>,
}

impl FromRequestParts<Arc<AppState>> for Manager {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Response> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let permitted = state.permit(&caller, Permission::ManageVaults, On::Vault("vaults")).await;
        permitted.map_err(AppError::into_response)?;
        match parts.extensions.get::<Arc<Vaults>>() {
            Some(vaults) => Ok(Self { caller, vaults: Arc::clone(vaults) }),
            None => Err(no_such_path().await),
        }
    }
}

fn incarnation(parts: &Parts) -> Result<String, AppError> {
    text(parts, INCARNATION.name).ok_or_else(|| AppError::bad(INCARNATION.name, "it must be in the query"))
}

async fn put(
    Manager { caller, vaults }: Manager,
    Path(name): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<VaultView>), AppError> {
    let settings = strict_json(request).await?;
    let (view, created) = vaults.put(&caller, &name, settings).await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(view)))
}

async fn list(manager: Manager) -> Answer<Vec<VaultView>> {
    Ok(Json(manager.vaults.views(false).await?))
}

async fn show(manager: Manager, Path(name): Path<String>) -> Answer<VaultView> {
    Ok(Json(manager.vaults.live_view(&name).await?))
}

async fn delete(
    Manager { caller, vaults }: Manager,
    Path(name): Path<String>,
    request: Request,
) -> Answer<VaultView> {
    let (parts, _) = request.into_parts();
    Ok(Json(vaults.delete(&caller, &name, &incarnation(&parts)?).await?))
}

async fn list_deleted(manager: Manager) -> Answer<Vec<VaultView>> {
    Ok(Json(manager.vaults.views(true).await?))
}

async fn show_deleted(manager: Manager, Path(name): Path<String>) -> Answer<VaultView> {
    Ok(Json(manager.vaults.deleted_view(&name).await?))
}

async fn recover(
    Manager { caller, vaults }: Manager,
    Path(name): Path<String>,
    request: Request,
) -> Answer<VaultView> {
    let resource: VaultResource = strict_json(request).await?;
    Ok(Json(vaults.recover(&caller, &name, resource).await?))
}

async fn purge(
    Manager { caller, vaults }: Manager,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, AppError> {
    let (parts, _) = request.into_parts();
    vaults.purge(&caller, &name, &incarnation(&parts)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
