//! Disks.

use axum::response::Response;

use super::{App, Call, reply};
use crate::app::disks;
use crate::app::names::{self, DISK};
use crate::app::refusal::Refusal;
use crate::store::Resource;

/// `PUT`: refused.
pub async fn put(_app: App, call: Call) -> Result<Response, Refusal> {
    Err(disks::put(&call.place("disk")))
}

/// `GET`.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::ok(&disks::get(&app, &call.place("disk")).await?))
}

/// `PATCH`.
pub async fn patch(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::ok(&disks::patch(&app, &call.place("disk"), &call.body).await?))
}

/// `DELETE`.
pub async fn delete(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::removed(disks::delete(&app, &call.place("disk")).await?))
}

/// List of a group.
pub async fn list_group(app: App, call: Call) -> Result<Response, Refusal> {
    let key = names::group_key(call.parameter("sub"), call.parameter("group"));
    if app.store.resource(&key).await?.is_none() {
        return Err(Refusal::no_group(call.parameter("group")));
    }
    let disks = app.store.resources_in(&key).await?;
    list(&app, disks.into_iter().filter(|resource| resource.kind == DISK).collect()).await
}

/// List of a subscription.
pub async fn list_all(app: App, call: Call) -> Result<Response, Refusal> {
    let disks = app.store.resources_of(DISK, &call.parameter("sub").to_ascii_lowercase()).await?;
    list(&app, disks).await
}

async fn list(app: &App, disks: Vec<Resource>) -> Result<Response, Refusal> {
    let vms = app.store.vms().await?;
    let owner = |disk: &Resource| vms.iter().find(|vm| vm.resource.key == disks::owner_key(disk));
    Ok(reply::list(disks.iter().map(|disk| disks::view(disk, owner(disk))).collect()))
}
