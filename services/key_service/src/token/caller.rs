//! Who calls: a bearer token of an issuer that the vault believes.

use token_verifier::bearer::{Bearer, BearerVerifier};
use token_verifier::{Issuer, Refusal, TokenError, refusal, shown};

/// A verified caller.
#[derive(Clone, Debug)]
pub struct Caller(Bearer);

impl Caller {
    /// `appid`, or `sub`.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// `oid`: whom assignments and access policies name. Empty where the token has none.
    pub fn object_id(&self) -> &str {
        &self.0.object
    }

    /// Whether one of its app roles is among `accepted`; the denial says which would be.
    pub fn require_role(&self, accepted: &[&str], permission: &str) -> Result<(), Refusal> {
        self.0.require_role(accepted, permission)
    }
}

/// Verifies bearer tokens.
pub struct Callers {
    verifier: BearerVerifier,
    /// The only tenant whose callers are let in; any of the issuer's without.
    tenant: Option<String>,
}

impl Callers {
    /// One issuer, one audience.
    pub fn new(issuer: Issuer, audience: &str) -> Self {
        Self { verifier: BearerVerifier::new(issuer, vec![audience.to_owned()]), tenant: None }
    }

    /// The same, of one tenant alone (`tid`).
    #[must_use]
    pub fn of_tenant(self, tenant: &str) -> Self {
        Self { tenant: Some(tenant.to_owned()), ..self }
    }

    /// Checks a bearer token.
    pub async fn verify(&self, token: &str, now: i64) -> Result<Caller, TokenError> {
        let bearer = self.verifier.verify(token, now).await?;
        match &self.tenant {
            Some(tenant) if !tenant.eq_ignore_ascii_case(&bearer.tenant) => {
                Err(TokenError::Refused(foreign(tenant, &bearer.tenant)))
            }
            _ => Ok(Caller(bearer)),
        }
    }
}

fn foreign(tenant: &str, actual: &str) -> Refusal {
    let rule = "a vault takes tokens of its own tenant only";
    let remedy = "sign in to the vault's tenant, which the challenge names";
    refusal("TokenTenantWrong", "tid", tenant, shown(actual), rule, remedy)
}
