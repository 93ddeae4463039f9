//! Role definitions: Azure's built-in roles over keys. There are no others, and nobody adds any.

use public_api::key_roles::{KEY_ROLES, KeyRole};
use serde_json::{Value, json};

use super::refusal::{Kind, Refusal};

/// The type as Resource Manager writes it.
pub const TYPE: &str = "Microsoft.Authorization/roleDefinitions";

/// Those that fit `$filter=roleName eq '...'`, or all.
pub fn list(subscription: &str, filter: Option<&str>) -> Vec<Value> {
    let name = filter.and_then(|filter| {
        let (property, rest) = filter.split_once(" eq '")?;
        let (name, _) = rest.split_once('\'')?;
        property.trim().eq_ignore_ascii_case("roleName").then_some(name)
    });
    let fits = |role: &&KeyRole| name.is_none_or(|name| role.name.eq_ignore_ascii_case(name));
    KEY_ROLES.iter().filter(fits).map(|role| view(subscription, role)).collect()
}

/// The one with this GUID.
pub fn get(subscription: &str, id: &str) -> Result<Value, Refusal> {
    KeyRole::by_id(id).map(|role| view(subscription, role)).ok_or_else(|| not_found(id))
}

/// The role that an id in full, or a GUID, names.
pub fn named(id: &str) -> Result<&'static KeyRole, Refusal> {
    let guid = id.rsplit('/').next().unwrap_or_default();
    KeyRole::by_id(guid).ok_or_else(|| not_found(guid))
}

/// Its id in a subscription.
pub fn id(subscription: &str, role: &KeyRole) -> String {
    format!("/subscriptions/{subscription}/providers/{TYPE}/{}", role.id)
}

fn view(subscription: &str, role: &KeyRole) -> Value {
    json!({
        "id": id(subscription, role),
        "name": role.id,
        "type": TYPE,
        "properties": {
            "roleName": role.name,
            "type": "BuiltInRole",
            "description": role.description,
            "assignableScopes": ["/"],
            "permissions": [{
                "actions": [],
                "notActions": [],
                "dataActions": role.data_actions,
                "notDataActions": [],
            }],
        },
    })
}

fn not_found(id: &str) -> Refusal {
    let message = format!("The specified role definition with ID '{id}' does not exist.");
    Refusal::new(Kind::NotFound, "RoleDefinitionDoesNotExist", message)
}
