//! Resource groups.

use axum::http::StatusCode;
use axum::response::Response;

use super::{App, Call, reply};
use crate::app::names::{self, GROUP};
use crate::app::refusal::Refusal;
use crate::app::{body, groups, views};

/// `PUT`.
pub async fn put(app: App, call: Call) -> Result<Response, Refusal> {
    let body = body::json(&call.body)?;
    let (group, created) = groups::put(&app, call.parameter("sub"), call.parameter("group"), &body).await?;
    Ok(reply::written(&views::group(&group), created))
}

/// `GET`.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    let name = call.parameter("group");
    let group = app.store.resource(&names::group_key(call.parameter("sub"), name)).await?;
    Ok(reply::ok(&views::group(&group.ok_or_else(|| Refusal::no_group(name))?)))
}

/// `HEAD`: 204 or 404, without a body.
pub async fn head(app: App, call: Call) -> Result<Response, Refusal> {
    let key = names::group_key(call.parameter("sub"), call.parameter("group"));
    let there = app.store.resource(&key).await?.is_some();
    Ok(reply::empty(if there { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }))
}

/// `DELETE`, with `forceDeletionTypes=Microsoft.Compute/virtualMachines` if asked.
pub async fn delete(app: App, call: Call) -> Result<Response, Refusal> {
    let forced = call.query("forceDeletionTypes").unwrap_or_default().to_ascii_lowercase();
    let force = forced.contains("microsoft.compute/virtualmachines");
    let begun = groups::delete(&app, call.parameter("sub"), call.parameter("group"), force).await?;
    Ok(reply::accepted(&app, &call, &begun))
}

/// List.
pub async fn list(app: App, call: Call) -> Result<Response, Refusal> {
    let subscription = call.parameter("sub").to_ascii_lowercase();
    let groups = app.store.resources_of(GROUP, &subscription).await?;
    Ok(reply::list(groups.iter().map(views::group).collect()))
}
