//! `.../resources`: everything in a subscription or a group, without its details.

use axum::response::Response;
use serde_json::{Value, json};

use super::{App, Call, reply};
use crate::app::names::{self, GROUP, ROLE_ASSIGNMENT};
use crate::app::refusal::Refusal;
use crate::store::Resource;

/// List of a subscription, with `$filter=resourceType eq 'x' and name eq 'y'` if asked.
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
    let filter = call.query("$filter").unwrap_or_default();
    let (kind, name) = (wanted(filter, "resourceType"), wanted(filter, "name"));
    let fits = |resource: &&Resource| {
        let is_listed = ![GROUP, ROLE_ASSIGNMENT].contains(&resource.kind.as_str());
        let is_kind = kind.is_none_or(|kind| kind.eq_ignore_ascii_case(&resource.kind));
        is_listed && is_kind && name.is_none_or(|name| name.eq_ignore_ascii_case(&resource.name))
    };
    reply::list(found.iter().filter(fits).map(view).collect())
}

/// The `x` of `{property} eq 'x'` among conditions that are joined by `and`.
fn wanted<'a>(filter: &'a str, property: &str) -> Option<&'a str> {
    filter.split(" and ").find_map(|condition| {
        let (name, rest) = condition.split_once(" eq '")?;
        let (value, _) = rest.split_once('\'')?;
        name.trim().eq_ignore_ascii_case(property).then_some(value)
    })
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
