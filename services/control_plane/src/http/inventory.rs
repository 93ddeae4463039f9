//! `.../resources`: everything in a subscription or a group, without its details.

use axum::response::Response;
use serde_json::{Value, json};

use super::{App, Call, reply};
use crate::app::names::{self, GROUP};
use crate::app::refusal::Refusal;
use crate::store::Resource;

/// List of a subscription, with `$filter=resourceType eq 'x'` if asked.
pub async fn list_all(app: App, call: Call) -> Result<Response, Refusal> {
    let found = app.store.resources_of_subscription(&call.parameter("sub").to_ascii_lowercase()).await?;
    Ok(answer(&call, &found))
}

/// List of a group.
pub async fn list_group(app: App, call: Call) -> Result<Response, Refusal> {
    let key = names::group_key(call.parameter("sub"), call.parameter("group"));
    if app.store.resource(&key).await?.is_none() {
        return Err(Refusal::no_group(call.parameter("group")));
    }
    Ok(answer(&call, &app.store.resources_in(&key).await?))
}

fn answer(call: &Call, found: &[Resource]) -> Response {
    let wanted = call.query("$filter").and_then(wanted_type);
    let fits = |resource: &&Resource| {
        resource.kind != GROUP && wanted.is_none_or(|kind| kind.eq_ignore_ascii_case(&resource.kind))
    };
    reply::list(found.iter().filter(fits).map(view).collect())
}

/// The `x` of `resourceType eq 'x'`; what follows is left to the client.
fn wanted_type(filter: &str) -> Option<&str> {
    let (name, rest) = filter.split_once(" eq '")?;
    let (value, _) = rest.split_once('\'')?;
    name.trim().eq_ignore_ascii_case("resourceType").then_some(value)
}

fn view(resource: &Resource) -> Value {
    json!({
        "id": resource.id,
        "name": resource.name,
        "type": written_type(&resource.id),
        "location": resource.location,
        "tags": resource.desired["tags"],
    })
}

/// The type in the spelling of the id: `Microsoft.Compute/disks`.
fn written_type(id: &str) -> String {
    let parsed = id.parse::<public_api::resource_id::ResourceId>();
    parsed.ok().and_then(|id| id.resource_type()).unwrap_or_default()
}
