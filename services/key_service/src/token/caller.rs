//! Who calls: what the roles of a bearer token permit in the vault.

use token_verifier::bearer::{Bearer, BearerVerifier};
use token_verifier::{Issuer, Refusal, TokenError};

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read a key's public part.
    Read,
    /// List keys.
    List,
    /// Create, import, change, rotate, back up, restore, delete, recover, purge.
    Manage,
    /// `encrypt` to `verify`, and random bytes.
    Use,
    /// `release`.
    Release,
    /// Read the decision log.
    Log,
    /// Read metrics, from another machine.
    Metrics,
}

/// Everything but release.
const OFFICER: &str = "Key Vault Crypto Officer";
/// Reading and using.
const USER: &str = "Key Vault Crypto User";
/// Release only.
const RELEASE_USER: &str = "Key Vault Crypto Service Release User";
/// Metrics only.
const MONITORING_READER: &str = "Monitoring Reader";

impl Permission {
    /// The app roles that have it (names of Azure's built-in roles).
    fn roles(self) -> &'static [&'static str] {
        match self {
            Permission::Read | Permission::Use => &[OFFICER, USER],
            Permission::List | Permission::Manage | Permission::Log => &[OFFICER],
            Permission::Release => &[RELEASE_USER],
            Permission::Metrics => &[OFFICER, MONITORING_READER],
        }
    }

    /// Of these the one that has the least beside it.
    pub fn least_role(self) -> &'static str {
        self.roles().last().copied().unwrap_or_default()
    }
}

/// A verified caller.
#[derive(Clone, Debug)]
pub struct Caller(Bearer);

impl Caller {
    /// `appid`, or `sub`.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Whether one of the roles permits it; the denial says which would.
    pub fn require(&self, permission: Permission) -> Result<(), Refusal> {
        self.0
            .require_role(permission.roles(), &format!("the {permission:?} permission of the vault's roles"))
    }
}

/// Verifies bearer tokens.
pub struct Callers(BearerVerifier);

impl Callers {
    /// One issuer, one audience.
    pub fn new(issuer: Issuer, audience: &str) -> Self {
        Self(BearerVerifier::new(issuer, vec![audience.to_owned()]))
    }

    /// Checks a bearer token.
    pub async fn verify(&self, token: &str, now: i64) -> Result<Caller, TokenError> {
        self.0.verify(token, now).await.map(Caller)
    }
}
