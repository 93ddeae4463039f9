//! Who calls: bearer tokens for one resource (RFC 6750), with the caller's id and app roles.

use public_api::assignment::{ASSIGNMENTS, Assignment};
use serde::Deserialize as _;
use serde_json::Value;

use crate::remembered::Remembered;
use crate::verify::{Issuer, TokenError, VerifiedToken, missing, shown, verify};
use crate::{Refusal, refusal};

/// A verified caller.
#[derive(Clone, Debug, Default)]
pub struct Bearer {
    /// `appid`, or `sub`.
    pub id: String,
    /// `oid`, the principal's id in its tenant; empty where the token has none.
    pub object: String,
    /// `tid`; empty where the token has none.
    pub tenant: String,
    /// `roles`, as the token states them: what the application may do everywhere.
    pub roles: Vec<String>,
    /// What it may do to some resources.
    pub assignments: Vec<Assignment>,
}

impl Bearer {
    /// Whether the caller has one of `accepted` over the resource.
    pub fn is_assigned(&self, accepted: &[&str], resource: &str) -> bool {
        let grants = |one: &Assignment| accepted.contains(&one.role.as_str()) && one.covers(resource);
        self.assignments.iter().any(grants)
    }

    /// Passes if the caller has one of `accepted`; `permission` names what they are needed for.
    pub fn require_role(&self, accepted: &[&str], permission: &str) -> Result<(), Refusal> {
        if self.roles.iter().any(|role| accepted.contains(&role.as_str())) {
            return Ok(());
        }
        let actual = if self.roles.is_empty() { "no role".to_owned() } else { self.roles.join(", ") };
        let remedy = "have one of these roles assigned to the application, then get a new token";
        Err(refusal("RoleMissing", "roles", accepted.join(" or "), shown(&actual), permission, remedy))
    }
}

/// Verifies bearer tokens of one issuer or some for one audience.
pub struct BearerVerifier {
    issuers: Vec<Issuer>,
    audiences: Vec<String>,
    remembered: Remembered,
}

impl BearerVerifier {
    /// One issuer, and the spellings of the resource.
    pub fn new(issuer: Issuer, audiences: Vec<String>) -> Self {
        Self { issuers: vec![issuer], audiences, remembered: Remembered::default() }
    }

    /// Another issuer whose tokens count as well: a further tenant.
    #[must_use]
    pub fn with_issuer(mut self, issuer: Issuer) -> Self {
        self.issuers.push(issuer);
        self
    }

    /// Checks a bearer token at the time `now` (Unix seconds). One that was checked within the last minute is believed.
    pub async fn verify(&self, token: &str, now: i64) -> Result<Bearer, TokenError> {
        if let Some(known) = self.remembered.find(token, now) {
            return Ok(known);
        }
        let verified = verify(&self.issuers, token, now, None).await?;
        let bearer = self.caller(&verified)?;
        self.remembered.add(token, &bearer, now, verified.expires());
        Ok(bearer)
    }

    fn caller(&self, token: &VerifiedToken) -> Result<Bearer, Refusal> {
        self.check_audience(token)?;
        let roles = strings(token.claims().get("roles"));
        let id =
            token.text("appid").or(token.text("sub")).ok_or_else(|| missing("appid", "the caller's id"))?;
        let text = |claim| token.text(claim).unwrap_or_default().to_owned();
        Ok(Bearer {
            id: shown(id),
            object: text("oid"),
            tenant: text("tid"),
            roles,
            assignments: assignments(token.claims().get(ASSIGNMENTS)),
        })
    }

    fn check_audience(&self, token: &VerifiedToken) -> Result<(), Refusal> {
        let stated = match token.claims().get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            several => strings(several),
        };
        let plain = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
        let is_ours = |audience: &String| self.audiences.iter().any(|own| plain(own) == plain(audience));
        if stated.iter().any(is_ours) {
            return Ok(());
        }
        let rule = "a token is for the resource in `aud` only (RFC 7519 section 4.1.3)";
        let remedy = "ask for a token with this service's resource as scope";
        let actual = if stated.is_empty() { "missing".to_owned() } else { shown(&stated.join(", ")) };
        Err(refusal("TokenAudienceWrong", "aud", self.audiences.join(" or "), actual, rule, remedy))
    }
}

/// The token of an `Authorization: Bearer` header's value.
pub fn token_of(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What is not an assignment grants nothing.
fn assignments(value: Option<&Value>) -> Vec<Assignment> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|one| Assignment::deserialize(one).ok()).collect()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PROVIDER: &str =
        "/subscriptions/aa/resourceGroups/rg/providers/Microsoft.Attestation/attestationProviders/mine";

    #[test]
    fn what_is_no_assignment_grants_nothing() {
        let claim = json!([
            {"role": "Contributor"}, "Contributor", {"role": "Contributor", "scope": 1},
            {"role": "Contributor", "scope": "/subscriptions/aa", "condition": "never"},
        ]);
        assert_eq!(assignments(Some(&claim)), []);
        assert_eq!(assignments(Some(&json!("all"))), []);
        let claim = json!([{"role": "Reader", "scope": "/subscriptions/aa"}]);
        let bearer =
            Bearer { id: "me".to_owned(), assignments: assignments(Some(&claim)), ..Bearer::default() };
        assert!(bearer.is_assigned(&["Reader", "Contributor"], PROVIDER));
        assert!(!bearer.is_assigned(&["Contributor"], PROVIDER));
    }
}
