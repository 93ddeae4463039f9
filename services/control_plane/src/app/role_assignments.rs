//! Role assignments over vaults: at a subscription, a group, a vault or one key. A change is a change of every vault that it
//! holds for, which the reconciler tells the key service.

use serde_json::{Value, json};
use uuid::Uuid;

use super::body::{self, key_vault as shapes};
use super::groups::open_group;
use super::names::{MANAGED_HSM, ROLE_ASSIGNMENT, VAULT};
use super::refusal::{Kind, Refusal};
use super::vault_properties::guid;
use super::vaults::scope_within;
use super::{ControlPlane, now_millis, role_definitions, time_text, validation};
use crate::store::{NewResource, Resource, Tx};

/// The type as Resource Manager writes it.
const TYPE: &str = "Microsoft.Authorization/roleAssignments";
/// Most assignments of a subscription, so that no vault is told of more than the key service takes.
const MAX_OF_SUBSCRIPTION: usize = 1000;

/// Where assignments are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Subscription GUID.
    pub subscription: String,
    /// Resource group, of a scope within one.
    pub group: Option<String>,
    /// Type, as written, and name of a vault or managed HSM.
    pub vault: Option<(&'static str, String)>,
    /// Name of a key.
    pub key: Option<String>,
}

impl Scope {
    fn id(&self) -> String {
        let mut id = format!("/subscriptions/{}", self.subscription);
        if let Some(group) = &self.group {
            id += &format!("/resourceGroups/{group}");
        }
        if let Some((kind, name)) = &self.vault {
            id += &format!("/providers/Microsoft.KeyVault/{kind}/{name}");
        }
        if let Some(key) = &self.key {
            id += &format!("/keys/{key}");
        }
        id
    }

    fn vault_key(&self) -> Option<String> {
        let above = Self { key: None, ..self.clone() };
        self.vault.is_some().then(|| above.id().to_ascii_lowercase())
    }

    fn assignment_key(&self, name: &str) -> String {
        format!("{}/providers/{TYPE}/{name}", self.id()).to_ascii_lowercase()
    }

    /// The scope must be there, and not be going.
    async fn check(&self, tx: &mut Tx) -> Result<(), Refusal> {
        if let Some(group) = &self.group {
            open_group(tx, &self.subscription, group).await?;
        }
        let Some(key) = self.vault_key() else { return Ok(()) };
        match tx.resource(&key).await? {
            Some(vault) if !vault.deleted => Ok(()),
            _ => {
                let message = format!("The scope '{}' was not found.", self.id());
                Err(Refusal::new(Kind::NotFound, "ResourceNotFound", message))
            }
        }
    }
}

/// Makes an assignment; says whether it is new. An assignment is never changed, only made and removed.
pub async fn put(
    app: &ControlPlane,
    scope: &Scope,
    (name, caller): (&str, &str),
    text: &[u8],
) -> Result<(Value, bool), Refusal> {
    let fits = Uuid::try_parse(name).is_ok_and(|id| id.to_string().eq_ignore_ascii_case(name));
    if !fits {
        let message =
            format!("The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID.");
        return Err(Refusal::new(Kind::BadRequest, "InvalidRoleAssignmentId", message));
    }
    let desired = desired(scope, caller, text)?;
    let mut tx = app.store.begin().await?;
    scope.check(&mut tx).await?;
    let subscription = scope.subscription.to_ascii_lowercase();
    let all = tx.resources_of(ROLE_ASSIGNMENT, &subscription).await?;
    let key = scope.assignment_key(name);
    let same = |one: &&Resource| {
        ["principalId", "role", "scope"].iter().all(|part| one.desired[part] == desired[part])
    };
    if let Some(own) = all.iter().find(|one| one.key == key) {
        return match same(&own) {
            true => Ok((view(own), false)),
            false => {
                let message =
                    "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.";
                Err(Refusal::new(Kind::BadRequest, "RoleAssignmentUpdateNotPermitted", message))
            }
        };
    }
    if all.iter().any(|one| same(&one)) {
        return Err(Refusal::conflict("RoleAssignmentExists", "The role assignment already exists."));
    }
    if all.len() >= MAX_OF_SUBSCRIPTION {
        let message = format!("No more role assignments can be created: there are {MAX_OF_SUBSCRIPTION}.");
        return Err(Refusal::conflict("RoleAssignmentLimitExceeded", message));
    }
    let new = NewResource {
        id: format!("{}/providers/{TYPE}/{name}", scope.id()),
        kind: ROLE_ASSIGNMENT,
        subscription: subscription.clone(),
        group_key: group_key(scope),
        name: name.to_owned(),
        location: String::new(),
        incarnation: Uuid::new_v4().to_string(),
        desired,
        reached: 1,
    };
    tx.insert_resource(&new, now_millis()).await?;
    touch_vaults(&mut tx, scope).await?;
    let made = tx.resource(&key).await?.expect("the row was written in this transaction");
    tx.commit().await?;
    Ok((view(&made), true))
}

fn desired(scope: &Scope, caller: &str, text: &[u8]) -> Result<Value, Refusal> {
    let shaped = body::parse(text, &shapes::ROLE_ASSIGNMENT)?;
    let part = |name: &str| shaped["properties"][name].as_str();
    let required = |name: &str| {
        part(name).ok_or_else(|| validation::missing(&format!("properties.{name}"), name)).map(str::to_owned)
    };
    let principal = required("principalId")?;
    guid("properties.principalId", &principal)?;
    let role = role_definitions::named(&required("roleDefinitionId")?)?;
    Ok(json!({
        "scope": scope.id(),
        "principalId": principal.to_ascii_lowercase(),
        "role": role.id,
        "principalType": part("principalType").unwrap_or("ServicePrincipal"),
        "description": part("description"),
        "createdBy": caller,
        "createdOn": time_text(now_millis()),
    }))
}

/// An assignment at the scope.
pub async fn get(app: &ControlPlane, scope: &Scope, name: &str) -> Result<Value, Refusal> {
    let found = app.store.resource(&scope.assignment_key(name)).await?;
    found.map(|found| view(&found)).ok_or_else(|| {
        let message = format!("The role assignment '{name}' is not found.");
        Refusal::new(Kind::NotFound, "RoleAssignmentNotFound", message)
    })
}

/// Removes an assignment; what it was, if it was.
pub async fn delete(app: &ControlPlane, scope: &Scope, name: &str) -> Result<Option<Value>, Refusal> {
    let mut tx = app.store.begin().await?;
    let Some(found) = tx.resource(&scope.assignment_key(name)).await? else { return Ok(None) };
    tx.remove_resource(&found.key).await?;
    touch_vaults(&mut tx, scope).await?;
    tx.commit().await?;
    Ok(Some(view(&found)))
}

/// Which assignments a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// At the scope, above it and below it.
    All,
    /// At the scope and above it.
    AtScope,
    /// Of one principal.
    Principal(String),
}

impl Filter {
    /// Reads `$filter`: `atScope()`, `principalId eq '{guid}'` or `assignedTo('{guid}')`, joined by `and`.
    pub fn parse(text: Option<&str>) -> Result<Vec<Self>, Refusal> {
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(vec![Self::All]) };
        text.split(" and ").map(|part| Self::parse_one(part.trim())).collect()
    }

    fn parse_one(text: &str) -> Result<Self, Refusal> {
        let between = |before: &str, after: &str| {
            let lower = text.to_ascii_lowercase();
            lower.strip_prefix(before)?.strip_suffix(after).map(str::to_owned)
        };
        if text.eq_ignore_ascii_case("atScope()") {
            return Ok(Self::AtScope);
        }
        let principal = between("principalid eq '", "'").or_else(|| between("assignedto('", "')"));
        principal.map(Self::Principal).ok_or_else(|| {
            let message =
                format!("The filter '{text}' is not supported. Use atScope() or principalId eq '{{guid}}'.");
            Refusal::new(Kind::BadRequest, "UnsupportedQuery", message)
        })
    }

    fn fits(&self, scope: &str, assignment: &Resource) -> bool {
        match self {
            Self::All => true,
            Self::AtScope => is_at_or_above(&scope_of(assignment), scope),
            Self::Principal(id) => assignment.desired["principalId"] == json!(id),
        }
    }
}

/// Assignments that have to do with the scope.
pub async fn list(app: &ControlPlane, scope: &Scope, filters: &[Filter]) -> Result<Vec<Value>, Refusal> {
    let subscription = scope.subscription.to_ascii_lowercase();
    let all = app.store.resources_of(ROLE_ASSIGNMENT, &subscription).await?;
    let own = scope.id().to_ascii_lowercase();
    let concerns = |one: &&Resource| {
        let at = scope_of(one);
        (is_at_or_above(&at, &own) || is_at_or_above(&own, &at))
            && filters.iter().all(|filter| filter.fits(&own, one))
    };
    Ok(all.iter().filter(concerns).map(view).collect())
}

fn scope_of(assignment: &Resource) -> String {
    assignment.desired["scope"].as_str().unwrap_or_default().to_ascii_lowercase()
}

fn is_at_or_above(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Every vault that the scope has to do with has something to be told.
async fn touch_vaults(tx: &mut Tx, scope: &Scope) -> Result<(), Refusal> {
    let (id, subscription) = (scope.id().to_ascii_lowercase(), scope.subscription.to_ascii_lowercase());
    for kind in [VAULT, MANAGED_HSM] {
        for vault in tx.resources_of(kind, &subscription).await? {
            if !vault.deleted && scope_within(&vault.key, &id).is_some() {
                tx.change_resource(&vault, &vault.desired, false, now_millis()).await?;
            }
        }
    }
    Ok(())
}

/// Assignments within a group go with it; those of a subscription are in none.
fn group_key(scope: &Scope) -> String {
    let above = Scope { vault: None, key: None, ..scope.clone() };
    above.id().to_ascii_lowercase()
}

/// Removes the assignments at a vault that is gone, and at its keys.
pub async fn remove_below(tx: &mut Tx, vault: &Resource) -> Result<(), crate::store::StoreError> {
    for one in tx.resources_of(ROLE_ASSIGNMENT, &vault.subscription).await? {
        if is_at_or_above(&vault.key, &scope_of(&one)) {
            tx.remove_resource(&one.key).await?;
        }
    }
    Ok(())
}

fn view(assignment: &Resource) -> Value {
    let stored = &assignment.desired;
    let role = role_definitions::named(stored["role"].as_str().unwrap_or_default());
    json!({
        "id": assignment.id,
        "name": assignment.name,
        "type": TYPE,
        "properties": {
            "scope": stored["scope"],
            "roleDefinitionId": role.map(|role| role_definitions::id(&assignment.subscription, role)).ok(),
            "principalId": stored["principalId"],
            "principalType": stored["principalType"],
            "description": stored["description"],
            "createdOn": stored["createdOn"],
            "updatedOn": stored["createdOn"],
            "createdBy": stored["createdBy"],
            "updatedBy": stored["createdBy"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_or_refused() {
        assert_eq!(Filter::parse(None), Ok(vec![Filter::All]));
        assert_eq!(Filter::parse(Some("atscope()")), Ok(vec![Filter::AtScope]));
        let both = Filter::parse(Some("atScope() and assignedTo('A')")).unwrap();
        assert_eq!(both, [Filter::AtScope, Filter::Principal("a".to_owned())]);
        assert_eq!(Filter::parse(Some("roleName eq 'x'")).unwrap_err().code, "UnsupportedQuery");
    }
}
