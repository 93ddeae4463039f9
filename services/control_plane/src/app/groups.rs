//! Resource groups.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::names::{self, GROUP, SERVED_ELSEWHERE};
use super::operations::{self, Begun};
use super::refusal::{Kind, Refusal};
use super::{ControlPlane, now_millis};
use crate::store::{NewResource, Resource, Tx, Verb};

/// A group that may get resources.
pub async fn open_group(tx: &mut Tx, subscription: &str, name: &str) -> Result<Resource, Refusal> {
    let group = tx.resource(&names::group_key(subscription, name)).await?;
    let group = group.ok_or_else(|| Refusal::no_group(name))?;
    if group.deleted {
        let message = format!(
            "The resource group '{name}' is in deprovisioning state and cannot perform this operation."
        );
        return Err(Refusal::conflict("ResourceGroupBeingDeleted", message));
    }
    Ok(group)
}

/// A resource that begins its life in a group, and is done when it is written.
pub fn in_group(
    app: &ControlPlane,
    group: &Resource,
    (type_name, kind): (&str, &'static str),
    name: &str,
    desired: Value,
) -> NewResource {
    NewResource {
        id: names::resource_id(group, type_name, name),
        kind,
        subscription: group.subscription.clone(),
        group_key: group.key.clone(),
        name: name.to_owned(),
        location: app.config.region.clone(),
        incarnation: Uuid::new_v4().to_string(),
        desired,
        reached: 1,
    }
}

/// Creates a group, or replaces its labels; says whether it is new.
pub async fn put(
    app: &ControlPlane,
    subscription: &str,
    name: &str,
    body: &Value,
) -> Result<(Resource, bool), Refusal> {
    check_group_name(name)?;
    let tags = tags_of(body)?;
    let mut tx = app.store.begin().await?;
    let key = names::group_key(subscription, name);
    let existing = tx.resource(&key).await?;
    let created = existing.is_none();
    match existing {
        Some(_) => {
            let group = open_group(&mut tx, subscription, name).await?;
            tx.change_resource(&group, &json!({"tags": tags}), true, now_millis()).await?;
        }
        None => {
            let location = body.get("location").and_then(Value::as_str);
            names::check_location("Microsoft.Resources/resourceGroups", location, &app.config.region)?;
            let new = NewResource {
                id: format!("/subscriptions/{subscription}/resourceGroups/{name}"),
                kind: GROUP,
                subscription: subscription.to_owned(),
                group_key: key.clone(),
                name: name.to_owned(),
                location: app.config.region.clone(),
                incarnation: Uuid::new_v4().to_string(),
                desired: json!({"tags": tags}),
                reached: 1,
            };
            tx.insert_resource(&new, now_millis()).await?;
        }
    }
    let group = tx.resource(&key).await?.ok_or_else(|| Refusal::no_group(name))?;
    tx.commit().await?;
    Ok((group, created))
}

/// Says that a group and all that is in it shall go away. With `force`, nobody waits for the hosts of its VMs.
pub async fn delete(
    app: &ControlPlane,
    subscription: &str,
    name: &str,
    force: bool,
) -> Result<Begun, Refusal> {
    let mut tx = app.store.begin().await?;
    let key = names::group_key(subscription, name);
    let group = tx.resource(&key).await?.ok_or_else(|| Refusal::no_group(name))?;
    let now = now_millis();
    let generation = if group.deleted { group.generation } else { tx.mark_deleted(&group, now).await? };
    for vm in tx.vms().await? {
        if vm.resource.group_key == key && (force || !vm.resource.deleted) {
            super::vms::mark_vm_deleted(&mut tx, &vm, force, now).await?;
        }
    }
    for resource in tx.resources_in(&key).await? {
        if SERVED_ELSEWHERE.contains(&resource.kind.as_str()) && !resource.deleted {
            tx.mark_deleted(&resource, now).await?;
        }
    }
    let begun = operations::begin(&mut tx, &group, generation, Verb::Delete, now).await?;
    tx.commit().await?;
    Ok(begun)
}

fn check_group_name(name: &str) -> Result<(), Refusal> {
    let fits = !name.is_empty()
        && name.len() <= 90
        && !name.ends_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.()".contains(c));
    if fits {
        return Ok(());
    }
    let message = format!(
        "The provided resource group name '{name}' has these invalid characters or a wrong length: it must have 1 to 90 \
         letters, digits, '-', '_', '.', '(' or ')' and must not end with '.'."
    );
    Err(Refusal::new(Kind::BadRequest, "InvalidResourceGroup", message))
}

/// `tags` of a body: an object of text values, or nothing.
pub fn tags_of(body: &Value) -> Result<Map<String, Value>, Refusal> {
    match body.get("tags") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(tags)) if tags.values().all(Value::is_string) => Ok(tags.clone()),
        Some(_) => Err(Refusal::new(
            Kind::BadRequest,
            "InvalidTagsFormat",
            "The tags must be an object of text values.",
        )
        .at("tags")),
    }
}
