//! Whether a caller may do something with a vault or with one of its keys.
//!
//! In the default vault the app roles of the token decide. In a named vault they mean nothing: there a role assignment or an
//! access policy must name the caller's `oid`. An assignment at a key's scope says nothing about the vault, so it does not
//! list, and nothing about another key.

use public_api::key_roles::KeyRole;
use public_api::vaults::{VaultAccess, VaultAccessPolicy, VaultKind, VaultRoleAssignment};
use token_verifier::{Refusal, refusal, shown};

use super::caller::Caller;
use super::permission::Permission;

/// What `all` of an access policy leaves out. Source: Key Vault documentation, "Assign a Key Vault access policy": purge
/// must be given by its name; so must release here.
const NOT_IN_ALL: [Permission; 2] = [Permission::Purge, Permission::Release];

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On<'a> {
    /// The vault, or something of it that is no key.
    Vault(&'a str),
    /// A key, by its name in any case.
    Key(&'a str),
}

impl On<'_> {
    /// What the log calls it before it is known to exist.
    pub fn subject(self) -> String {
        match self {
            Self::Vault(part) => part.to_owned(),
            Self::Key(name) => format!("keys/{}", shown(name)),
        }
    }

    fn scope(self) -> String {
        match self {
            Self::Vault(_) => "/".to_owned(),
            Self::Key(name) => format!("/keys/{}", shown(name)),
        }
    }

    /// Whether an assignment at `scope` says something about it.
    fn is_within(self, scope: &str) -> bool {
        match (scope, self) {
            ("/", _) => true,
            (scope, Self::Key(name)) => {
                scope.strip_prefix("/keys/").is_some_and(|key| key.eq_ignore_ascii_case(name))
            }
            (_, Self::Vault(_)) => false,
        }
    }
}

/// Who may do what in one vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever has the app role: the default vault.
    AppRoles,
    /// Whom the vault's settings name.
    Named {
        /// Decides how actions are called.
        kind: VaultKind,
        /// Resource Manager's id, for remedies.
        resource: String,
        /// The settings.
        access: VaultAccess,
    },
}

impl Access {
    /// Passes if the caller may; the denial names the permission, where it was looked for, and the remedy.
    pub fn require(&self, caller: &Caller, permission: Permission, on: On<'_>) -> Result<(), Refusal> {
        match self {
            Self::AppRoles => {
                let needed = format!("the {permission:?} permission of the vault's roles");
                caller.require_role(permission.app_roles(), &needed)
            }
            Self::Named { kind, resource, access: VaultAccess::RoleAssignments { assignments } } => {
                let action = permission.data_action(*kind);
                let own = || assignments.iter().filter(|one| is_principal(caller, &one.principal_id));
                let grants = |one: &VaultRoleAssignment| {
                    let role = KeyRole::by_id(&one.role_definition_id);
                    let permits =
                        role.zip(action.as_deref()).is_some_and(|(role, action)| role.permits(action));
                    permits && on.is_within(&one.scope)
                };
                match own().any(grants) {
                    true => Ok(()),
                    false => Err(by_rbac(caller, action.as_deref(), (resource, on), own())),
                }
            }
            Self::Named { resource, access: VaultAccess::AccessPolicies { policies }, .. } => {
                let own = policies.iter().find(|policy| is_principal(caller, &policy.object_id));
                match own.is_some_and(|policy| grants(policy, permission)) {
                    true => Ok(()),
                    false => Err(by_policy(caller, permission, resource, own)),
                }
            }
        }
    }
}

fn is_principal(caller: &Caller, id: &str) -> bool {
    !caller.object_id().is_empty() && caller.object_id().eq_ignore_ascii_case(id)
}

fn grants(policy: &VaultAccessPolicy, permission: Permission) -> bool {
    let Some(name) = permission.policy_name() else { return false };
    let all = !NOT_IN_ALL.contains(&permission);
    policy.keys.iter().any(|own| own.eq_ignore_ascii_case(name) || all && own.eq_ignore_ascii_case("all"))
}

/// Code as Key Vault's inner error.
fn by_rbac<'a>(
    caller: &Caller,
    action: Option<&str>,
    (resource, on): (&str, On<'_>),
    own: impl Iterator<Item = &'a VaultRoleAssignment>,
) -> Refusal {
    let shown_role = |one: &VaultRoleAssignment| {
        let role =
            KeyRole::by_id(&one.role_definition_id).map_or(one.role_definition_id.as_str(), |role| role.name);
        format!("{role} at {}", one.scope)
    };
    let seen: Vec<String> = own.map(shown_role).collect();
    let actual = if seen.is_empty() { "no assignment".to_owned() } else { seen.join("; ") };
    let action = action.unwrap_or("an action that no role has");
    let expected = format!("a role with {action} at {} or above", on.scope());
    let rule = "role assignments of the caller's oid decide, at the key's scope, the vault's and those above";
    let scope = if on.scope() == "/" { resource.to_owned() } else { format!("{resource}{}", on.scope()) };
    let remedy = format!("assign {} such a role at {scope}", principal(caller));
    refusal("ForbiddenByRbac", "role assignments", expected, shown(&actual), rule, remedy)
}

fn by_policy(
    caller: &Caller,
    permission: Permission,
    resource: &str,
    own: Option<&VaultAccessPolicy>,
) -> Refusal {
    let name = permission.policy_name().unwrap_or("a permission that no policy gives");
    let actual = own.map_or_else(|| "no policy for the caller".to_owned(), |policy| policy.keys.join(", "));
    let rule = "the vault's access policies decide, by the caller's oid, for all keys alike";
    let principal = principal(caller);
    let remedy = match permission.policy_name() {
        Some(name) => format!("add {name} to the key permissions of {principal} in {resource}"),
        None => {
            format!("let role assignments decide in {resource}, and assign {principal} a role that has it")
        }
    };
    refusal(
        "ForbiddenByPolicy",
        "accessPolicies",
        format!("key permission {name}"),
        shown(&actual),
        rule,
        remedy,
    )
}

fn principal(caller: &Caller) -> String {
    match caller.object_id() {
        "" => "a caller whose token has an oid".to_owned(),
        object => format!("the object {}", shown(object)),
    }
}
