//! Who calls: bearer tokens for one resource (RFC 6750), with the caller's id and app roles.

use serde_json::Value;

use crate::verify::{Issuer, TokenError, VerifiedToken, missing, shown, verify};
use crate::{Refusal, refusal};

/// A verified caller.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// `appid`, or `sub`.
    pub id: String,
    /// `roles`, as the token states them.
    pub roles: Vec<String>,
}

impl Bearer {
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

/// Verifies bearer tokens of one issuer for one audience.
pub struct BearerVerifier {
    issuer: [Issuer; 1],
    audiences: Vec<String>,
}

impl BearerVerifier {
    /// One issuer, and the spellings of the resource.
    pub fn new(issuer: Issuer, audiences: Vec<String>) -> Self {
        Self { issuer: [issuer], audiences }
    }

    /// Checks a bearer token at the time `now` (Unix seconds).
    pub async fn verify(&self, token: &str, now: i64) -> Result<Bearer, TokenError> {
        let token = verify(&self.issuer, token, now, None).await?;
        self.check_audience(&token)?;
        let roles = strings(token.claims().get("roles"));
        let id =
            token.text("appid").or(token.text("sub")).ok_or_else(|| missing("appid", "the caller's id"))?;
        Ok(Bearer { id: shown(id), roles })
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

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
