//! Disk encryption sets. Clients accept 200 or 202 for a `PUT`, never 201.

use axum::response::Response;
use serde_json::json;

use super::{App, Call, reply};
use crate::app::encryption_sets as sets;
use crate::app::names::{self, DES};
use crate::app::refusal::Refusal;

/// `PUT`.
pub async fn put(app: App, call: Call) -> Result<Response, Refusal> {
    let written = sets::put(&app, &call.place("set"), &call.body).await?;
    Ok(answer(&app, &call, &written))
}

/// 200 with the set, and how to follow its VMs' move to another key.
fn answer(app: &App, call: &Call, written: &sets::Written) -> Response {
    let response = reply::ok(&written.view);
    match &written.begun {
        Some(begun) => reply::follow(app, call, begun, response),
        None => response,
    }
}

/// `GET`.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    let place = call.place("set");
    let set = app.store.resource(&place.key(DES)).await?;
    let set = set.ok_or_else(|| {
        Refusal::not_found("Microsoft.Compute/diskEncryptionSets", &place.name, &place.group)
    })?;
    Ok(reply::ok(&sets::view(&app, &set, &app.store.vms().await?)))
}

/// `PATCH`.
pub async fn patch(app: App, call: Call) -> Result<Response, Refusal> {
    let written = sets::patch(&app, &call.place("set"), &call.body).await?;
    Ok(answer(&app, &call, &written))
}

/// `DELETE`.
pub async fn delete(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::removed(sets::delete(&app, &call.place("set")).await?))
}

/// List of a group.
pub async fn list_group(app: App, call: Call) -> Result<Response, Refusal> {
    let key = names::group_key(call.parameter("sub"), call.parameter("group"));
    if app.store.resource(&key).await?.is_none() {
        return Err(Refusal::no_group(call.parameter("group")));
    }
    let (found, vms) = (app.store.resources_in(&key).await?, app.store.vms().await?);
    let sets = found.iter().filter(|resource| resource.kind == DES);
    Ok(reply::list(sets.map(|set| sets::view(&app, set, &vms)).collect()))
}

/// List of a subscription.
pub async fn list_all(app: App, call: Call) -> Result<Response, Refusal> {
    let found = app.store.resources_of(DES, &call.parameter("sub").to_ascii_lowercase()).await?;
    let vms = app.store.vms().await?;
    Ok(reply::list(found.iter().map(|set| sets::view(&app, set, &vms)).collect()))
}

/// `GET .../associatedResources`: ids of disks.
pub async fn associated(app: App, call: Call) -> Result<Response, Refusal> {
    let disks = sets::associated(&app, &call.place("set")).await?;
    Ok(reply::ok(&json!({"value": disks})))
}
