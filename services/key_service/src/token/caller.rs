//! Who calls: bearer tokens of the control plane, and what their roles permit.

use serde_json::Value;

use super::verify::{self, Issuer, TokenError, VerifiedToken, missing, shown};
use crate::refusal::{Refusal, refusal};

/// App roles that the vault knows (names of Azure's built-in roles).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything but release.
    CryptoOfficer,
    /// Reading, wrapping, unwrapping.
    CryptoUser,
    /// Release only.
    ReleaseUser,
}

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read a key's public part.
    Read,
    /// List keys.
    List,
    /// Create, change, delete, recover, purge.
    Manage,
    /// `wrapkey` and `unwrapkey`.
    Use,
    /// `release`.
    Release,
    /// Read the decision log.
    Log,
}

const ROLES: [(Role, &str); 3] = [
    (Role::CryptoOfficer, "Key Vault Crypto Officer"),
    (Role::CryptoUser, "Key Vault Crypto User"),
    (Role::ReleaseUser, "Key Vault Crypto Service Release User"),
];

impl Role {
    fn permits(self, permission: Permission) -> bool {
        match self {
            Role::CryptoOfficer => permission != Permission::Release,
            Role::CryptoUser => matches!(permission, Permission::Read | Permission::Use),
            Role::ReleaseUser => permission == Permission::Release,
        }
    }
}

/// A verified caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `appid`, or `sub`.
    pub id: String,
    roles: Vec<Role>,
    stated: Vec<String>,
}

impl Caller {
    /// Whether one of the roles permits it; the denial says which would.
    pub fn require(&self, permission: Permission) -> Result<(), Refusal> {
        if self.roles.iter().any(|role| role.permits(permission)) {
            return Ok(());
        }
        let expected: Vec<&str> =
            ROLES.iter().filter(|(role, _)| role.permits(permission)).map(|(_, name)| *name).collect();
        let actual = if self.stated.is_empty() { "no role".to_owned() } else { self.stated.join(", ") };
        let rule = format!("the {permission:?} permission of the vault's roles");
        let remedy = "have one of these roles assigned to the application, then get a new token";
        Err(refusal("RoleMissing", "roles", expected.join(" or "), shown(&actual), rule, remedy))
    }
}

/// Verifies bearer tokens.
pub struct Callers {
    issuer: [Issuer; 1],
    audience: String,
}

impl Callers {
    /// One issuer, one audience.
    pub fn new(issuer: Issuer, audience: &str) -> Self {
        Self { issuer: [issuer], audience: audience.to_owned() }
    }

    /// Checks a bearer token.
    pub async fn verify(&self, token: &str, now: i64) -> Result<Caller, TokenError> {
        let token = verify::verify(&self.issuer, token, now, None).await?;
        self.check_audience(&token)?;
        let stated = strings(token.claims().get("roles"));
        let roles =
            ROLES.iter().filter(|(_, name)| stated.iter().any(|role| role == name)).map(|(role, _)| *role);
        let roles = roles.collect();
        let id =
            token.text("appid").or(token.text("sub")).ok_or_else(|| missing("appid", "the caller's id"))?;
        Ok(Caller { id: shown(id), roles, stated })
    }

    fn check_audience(&self, token: &VerifiedToken) -> Result<(), Refusal> {
        let audiences = match token.claims().get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            several => strings(several),
        };
        let plain = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
        if audiences.iter().any(|audience| plain(audience) == plain(&self.audience)) {
            return Ok(());
        }
        let rule = "a token is for the resource in `aud` only (RFC 7519 section 4.1.3)";
        let remedy = "ask for a token with this vault's resource as scope";
        let actual = if audiences.is_empty() { "missing".to_owned() } else { shown(&audiences.join(", ")) };
        Err(refusal("TokenAudienceWrong", "aud", self.audience.as_str(), actual, rule, remedy))
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
