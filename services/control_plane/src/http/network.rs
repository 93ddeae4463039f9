//! Microsoft.Network: stored resources.

use axum::response::Response;

use super::{App, Call, reply};
use crate::app::names;
use crate::app::refusal::{Kind, Refusal};
use crate::app::stored::{
    self, NETWORK_INTERFACES, NETWORK_SECURITY_GROUPS, PUBLIC_IP_ADDRESSES, StoredType, VIRTUAL_NETWORKS,
};

fn kind(call: &Call) -> Result<&'static StoredType, Refusal> {
    let word = call.parameter("type");
    let all = [&VIRTUAL_NETWORKS, &NETWORK_INTERFACES, &PUBLIC_IP_ADDRESSES, &NETWORK_SECURITY_GROUPS];
    let last =
        |kind: &StoredType| kind.name.rsplit('/').next().is_some_and(|name| name.eq_ignore_ascii_case(word));
    all.into_iter().find(|kind| last(kind)).ok_or_else(|| {
        let message =
            format!("The resource type '{word}' could not be found in the namespace 'Microsoft.Network'.");
        Refusal::new(Kind::NotFound, "InvalidResourceType", message)
    })
}

/// `PUT`.
pub async fn put(app: App, call: Call) -> Result<Response, Refusal> {
    let (view, created) = stored::put(&app, kind(&call)?, &call.place("name"), &call.body).await?;
    Ok(reply::written(&view, created))
}

/// `GET`.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    let (kind, place) = (kind(&call)?, call.place("name"));
    let found = app.store.resource(&place.key(kind.kind)).await?;
    let found = found.ok_or_else(|| Refusal::not_found(kind.name, &place.name, &place.group))?;
    Ok(reply::ok(&stored::view(kind, &found)))
}

/// `DELETE`.
pub async fn delete(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::removed(stored::delete(&app, kind(&call)?, &call.place("name")).await?))
}

/// List of a group.
pub async fn list_group(app: App, call: Call) -> Result<Response, Refusal> {
    let kind = kind(&call)?;
    let key = names::group_key(call.parameter("sub"), call.parameter("group"));
    if app.store.resource(&key).await?.is_none() {
        return Err(Refusal::no_group(call.parameter("group")));
    }
    let found = app.store.resources_in(&key).await?;
    let found = found.iter().filter(|resource| resource.kind == kind.kind);
    Ok(reply::list(found.map(|resource| stored::view(kind, resource)).collect()))
}

/// List of a subscription.
pub async fn list_all(app: App, call: Call) -> Result<Response, Refusal> {
    let kind = kind(&call)?;
    let found = app.store.resources_of(kind.kind, &call.parameter("sub").to_ascii_lowercase()).await?;
    Ok(reply::list(found.iter().map(|resource| stored::view(kind, resource)).collect()))
}

/// `PUT` of a subnet.
pub async fn put_subnet(app: App, call: Call) -> Result<Response, Refusal> {
    let (view, created) =
        stored::put_subnet(&app, &call.place("name"), call.parameter("subnet"), &call.body).await?;
    Ok(reply::written(&view, created))
}

/// `GET` of a subnet.
pub async fn get_subnet(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::ok(&stored::subnet(&app, &call.place("name"), call.parameter("subnet")).await?))
}
