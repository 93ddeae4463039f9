//! Resources of Microsoft.Network: kept and shown, without an effect.
//!
//! Clients name a network interface when they create a VM, and an interface names a subnet. Hosts give every VM its own
//! user-mode network with one forwarded port, so nothing here filters or routes; each answer says so.

use serde_json::{Map, Value, json};

use super::groups::{in_group, open_group, tags_of};
use super::names::{self, NIC, Place};
use super::refusal::Refusal;
use super::{ControlPlane, now_millis, validation};
use crate::store::Resource;

/// A type of stored resource.
#[derive(Debug, PartialEq, Eq)]
pub struct StoredType {
    /// As Resource Manager writes it.
    pub name: &'static str,
    /// As the store has it.
    pub kind: &'static str,
    /// Lists in `properties` whose items get an id; the first must be there.
    children: &'static [&'static str],
    /// Whether the first list must not be empty.
    needs_child: bool,
}

/// Virtual networks.
pub static VIRTUAL_NETWORKS: StoredType = StoredType {
    name: "Microsoft.Network/virtualNetworks",
    kind: "microsoft.network/virtualnetworks",
    children: &["subnets"],
    needs_child: false,
};
/// Network interfaces.
pub static NETWORK_INTERFACES: StoredType = StoredType {
    name: "Microsoft.Network/networkInterfaces",
    kind: NIC,
    children: &["ipConfigurations"],
    needs_child: true,
};
/// Public addresses.
pub static PUBLIC_IP_ADDRESSES: StoredType = StoredType {
    name: "Microsoft.Network/publicIPAddresses",
    kind: "microsoft.network/publicipaddresses",
    children: &[],
    needs_child: false,
};
/// Security groups.
pub static NETWORK_SECURITY_GROUPS: StoredType = StoredType {
    name: "Microsoft.Network/networkSecurityGroups",
    kind: "microsoft.network/networksecuritygroups",
    children: &["securityRules"],
    needs_child: false,
};

/// Creates or replaces a resource; says whether it is new.
pub async fn put(
    app: &ControlPlane,
    kind: &'static StoredType,
    place: &Place,
    text: &[u8],
) -> Result<(Value, bool), Refusal> {
    names::check_name(kind.name, &place.name, 80)?;
    let body = super::body::json(text)?;
    names::check_location(kind.name, body.get("location").and_then(Value::as_str), &app.config.region)?;
    let properties = checked_properties(kind, &body)?;
    let desired = json!({"tags": tags_of(&body)?, "sku": body.get("sku"), "properties": properties});
    let mut tx = app.store.begin().await?;
    let group = open_group(&mut tx, &place.subscription, &place.group).await?;
    let key = place.key(kind.kind);
    let existing = tx.resource(&key).await?;
    match &existing {
        Some(resource) => drop(tx.change_resource(resource, &desired, true, now_millis()).await?),
        None => {
            let new = in_group(app, &group, (kind.name, kind.kind), &place.name, desired);
            tx.insert_resource(&new, now_millis()).await?;
        }
    }
    let stored = tx.resource(&key).await?.expect("the row was written in this transaction");
    tx.commit().await?;
    Ok((view(kind, &stored), existing.is_none()))
}

fn checked_properties(kind: &StoredType, body: &Value) -> Result<Map<String, Value>, Refusal> {
    let mut properties = match body.get("properties") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(properties)) => properties.clone(),
        Some(_) => return Err(Refusal::bad("'properties' must be an object.").at("properties")),
    };
    for list in kind.children {
        let path = format!("properties.{list}");
        let items = properties.entry(*list).or_insert_with(|| json!([]));
        if items.is_null() {
            *items = json!([]);
        }
        let named = |item: &Value| item.get("name").is_some_and(Value::is_string);
        match items.as_array() {
            Some(items) if kind.needs_child && items.is_empty() => {
                return Err(validation::missing(&path, list));
            }
            Some(items) if items.iter().all(named) => {}
            _ => {
                return Err(
                    Refusal::bad(format!("'{path}' must be a list of objects with a name.")).at(&path)
                );
            }
        }
    }
    Ok(properties)
}

/// Removes a resource; `false` if there is none. An interface that a VM names stays.
pub async fn delete(app: &ControlPlane, kind: &'static StoredType, place: &Place) -> Result<bool, Refusal> {
    let mut tx = app.store.begin().await?;
    let Some(resource) = tx.resource(&place.key(kind.kind)).await? else { return Ok(false) };
    for vm in tx.vms().await? {
        let interfaces = vm.desired.properties["networkProfile"]["networkInterfaces"].as_array().cloned();
        let ids = interfaces.iter().flatten().filter_map(|interface| interface["id"].as_str());
        if ids.into_iter().any(|id| id.eq_ignore_ascii_case(&resource.key)) {
            let message =
                format!("Network Interface {} is used by existing resource {}.", resource.id, vm.resource.id);
            return Err(Refusal::conflict("NicInUse", message));
        }
    }
    tx.remove_resource(&resource.key).await?;
    tx.commit().await?;
    Ok(true)
}

/// A resource as it is shown.
pub fn view(kind: &StoredType, resource: &Resource) -> Value {
    let mut properties = resource.desired["properties"].clone();
    for list in kind.children {
        let items = properties[*list].as_array_mut().into_iter().flatten();
        for item in items {
            let name = item["name"].as_str().unwrap_or_default().to_owned();
            item["id"] = json!(format!("{}/{list}/{name}", resource.id));
            item["properties"]["provisioningState"] = json!("Succeeded");
        }
    }
    properties["provisioningState"] = json!("Succeeded");
    properties["casemate"] = json!({"effective": false});
    let mut view = json!({
        "id": resource.id,
        "name": resource.name,
        "type": kind.name,
        "etag": format!("W/\"{}-{}\"", resource.incarnation, resource.generation),
        "location": resource.location,
        "tags": resource.desired["tags"],
        "properties": properties,
    });
    if !resource.desired["sku"].is_null() {
        view["sku"] = resource.desired["sku"].clone();
    }
    view
}

/// A subnet of a virtual network.
pub async fn subnet(app: &ControlPlane, network: &Place, name: &str) -> Result<Value, Refusal> {
    let kind = &VIRTUAL_NETWORKS;
    let found = app.store.resource(&network.key(kind.kind)).await?;
    let found = found.ok_or_else(|| Refusal::not_found(kind.name, &network.name, &network.group))?;
    let view = view(kind, &found);
    let subnets = view["properties"]["subnets"].as_array().into_iter().flatten();
    let same =
        |subnet: &&Value| subnet["name"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(name));
    subnets.into_iter().find(same).cloned().ok_or_else(|| {
        Refusal::not_found(
            &format!("{}/subnets", kind.name),
            &format!("{}/{name}", network.name),
            &network.group,
        )
    })
}

/// Adds a subnet, or replaces one; says whether it is new.
pub async fn put_subnet(
    app: &ControlPlane,
    network: &Place,
    name: &str,
    text: &[u8],
) -> Result<(Value, bool), Refusal> {
    names::check_name("Microsoft.Network/virtualNetworks/subnets", name, 80)?;
    let body = super::body::json(text)?;
    let kind = &VIRTUAL_NETWORKS;
    let mut tx = app.store.begin().await?;
    let found = tx.resource(&network.key(kind.kind)).await?;
    let found = found.ok_or_else(|| Refusal::not_found(kind.name, &network.name, &network.group))?;
    let mut desired = found.desired.clone();
    let subnets =
        desired["properties"]["subnets"].as_array_mut().expect("every stored network has this list");
    let before = subnets.len();
    subnets.retain(|subnet| !subnet["name"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(name)));
    let created = subnets.len() == before;
    subnets.push(json!({"name": name, "properties": body.get("properties").filter(|given| given.is_object()).unwrap_or(&json!({}))}));
    tx.change_resource(&found, &desired, true, now_millis()).await?;
    tx.commit().await?;
    Ok((subnet(app, network, name).await?, created))
}
