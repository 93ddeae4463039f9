//! Access tokens: RS256, claims as Microsoft Entra's version 1.0 tokens for applications have them.
//!
//! A token is accepted only with our signature, an issuer of a configured tenant that agrees with `tid`, the right
//! audience, and within its time. There is no clock tolerance: issuer and verifier are one machine.

use jsonwebtoken::{Algorithm, Header, Validation, decode, encode};
use public_api::assignment::Assignment;
use public_api::jwk::JwkSet;
use serde::{Deserialize, Serialize};

use super::SigningKey;

/// Mints and checks tokens.
#[derive(Clone)]
pub struct TokenAuthority {
    key: SigningKey,
    base: String,
    audiences: Vec<String>,
}

/// Claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audience, as the caller spelled it.
    pub aud: String,
    /// `{base}/{tid}/v2.0`.
    pub iss: String,
    /// Issued at.
    pub iat: i64,
    /// Not before.
    pub nbf: i64,
    /// Expiry.
    pub exp: i64,
    /// Client id.
    pub appid: String,
    /// Object id of the service principal.
    pub oid: String,
    /// Tenant.
    pub tid: String,
    /// Subject; equals `oid` for applications.
    pub sub: String,
    /// `app`.
    pub idtyp: String,
    /// `1.0`.
    pub ver: String,
    /// App roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Roles over subscriptions ([`public_api::assignment::ASSIGNMENTS`]).
    #[serde(rename = "x-casemate-assignments", default, skip_serializing_if = "Vec::is_empty")]
    pub assignments: Vec<Assignment>,
    /// Token id.
    pub jti: String,
}

/// Why a token is not accepted; the text is shown to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Not signed by us, or not a token.
    #[error("the access token's signature or format is not valid")]
    Invalid,
    /// Too old.
    #[error("the access token has expired")]
    Expired,
    /// Not valid yet.
    #[error("the access token is not valid yet")]
    Immature,
    /// For another service.
    #[error("the access token is for another audience")]
    Audience,
    /// From a tenant that this installation does not know, or from one that its issuer does not name.
    #[error("the access token's issuer is not one of this installation's tenants")]
    Issuer,
}

impl TokenAuthority {
    /// An authority that issues as `base` and accepts tokens for any of `audiences`.
    pub fn new(key: SigningKey, base: &str, audiences: Vec<String>) -> Self {
        Self { key, base: base.to_owned(), audiences }
    }

    /// The issuer of a tenant's tokens.
    pub fn issuer(&self, tenant: &str) -> String {
        format!("{}/{tenant}/v2.0", self.base)
    }

    /// Public keys.
    pub fn jwks(&self) -> JwkSet {
        JwkSet { keys: vec![self.key.public.clone()] }
    }

    /// Makes a token without assignments that is valid from `now` (Unix seconds) for `lifetime` seconds.
    pub fn mint(
        &self,
        tenant: &str,
        client: &str,
        audience: &str,
        roles: &[String],
        now: i64,
        lifetime: i64,
    ) -> String {
        self.sign(&self.claims(tenant, client, audience, roles, now, lifetime))
    }

    /// The claims of a token that is valid from `now` (Unix seconds) for `lifetime` seconds, without assignments.
    pub fn claims(
        &self,
        tenant: &str,
        client: &str,
        audience: &str,
        roles: &[String],
        now: i64,
        lifetime: i64,
    ) -> Claims {
        let oid = object_id(tenant, client);
        Claims {
            aud: audience.to_owned(),
            iss: self.issuer(tenant),
            iat: now,
            nbf: now,
            exp: now + lifetime,
            appid: client.to_owned(),
            sub: oid.clone(),
            oid,
            tid: tenant.to_owned(),
            idtyp: "app".to_owned(),
            ver: "1.0".to_owned(),
            roles: roles.to_vec(),
            assignments: Vec::new(),
            jti: uuid::Uuid::new_v4().to_string(),
        }
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Claims) -> String {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.key.kid.clone());
        encode(&header, claims, &self.key.encoding)
            .expect("claims are plain strings and the key was checked at start")
    }

    /// Checks a token at `now` (Unix seconds); `tenants` are the accepted ones.
    pub fn verify<'a>(
        &self,
        token: &str,
        tenants: impl Iterator<Item = &'a str>,
        now: i64,
    ) -> Result<Claims, TokenRefusal> {
        // Times and names are compared below, against the given clock and with their own errors.
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        let data =
            decode::<Claims>(token, &self.key.decoding, &validation).map_err(|_| TokenRefusal::Invalid)?;
        if data.header.kid.as_deref() != Some(&self.key.kid) {
            return Err(TokenRefusal::Invalid);
        }
        let claims = data.claims;
        if now >= claims.exp {
            return Err(TokenRefusal::Expired);
        }
        if now < claims.nbf {
            return Err(TokenRefusal::Immature);
        }
        let audience = claims.aud.trim_end_matches('/');
        if !self.audiences.iter().any(|accepted| accepted.trim_end_matches('/') == audience) {
            return Err(TokenRefusal::Audience);
        }
        let mut tenants = tenants;
        if claims.iss != self.issuer(&claims.tid) || !tenants.any(|tenant| tenant == claims.tid) {
            return Err(TokenRefusal::Issuer);
        }
        Ok(claims)
    }
}

/// A service principal's object id: stable, and different from its client id.
fn object_id(tenant: &str, client: &str) -> String {
    let name = format!("{tenant}/{client}");
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "11111111-1111-1111-1111-111111111111";
    const OTHER: &str = "22222222-2222-2222-2222-222222222222";
    const ARM: &str = "https://localhost:8443";

    fn authority(directory: &tempfile::TempDir, name: &str) -> TokenAuthority {
        let key = SigningKey::load(&directory.path().join(name)).unwrap();
        TokenAuthority::new(key, ARM, vec![ARM.to_owned()])
    }

    fn check(authority: &TokenAuthority, token: &str, now: i64) -> Result<String, TokenRefusal> {
        authority.verify(token, [TENANT].into_iter(), now).map(|claims| claims.appid)
    }

    #[test]
    fn a_token_is_good_in_its_time_for_its_audience_only() {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority(&directory, "key.pem");
        let token = authority.mint(TENANT, "app", "https://localhost:8443/", &[], 1000, 60);
        assert_eq!(check(&authority, &token, 1000).as_deref(), Ok("app"));
        assert_eq!(check(&authority, &token, 1059).as_deref(), Ok("app"));
        assert_eq!(check(&authority, &token, 1060), Err(TokenRefusal::Expired));
        assert_eq!(check(&authority, &token, 999), Err(TokenRefusal::Immature));
        let vault = authority.mint(TENANT, "app", "https://vault.azure.net", &[], 1000, 60);
        assert_eq!(check(&authority, &vault, 1000), Err(TokenRefusal::Audience));
        let foreign = authority.mint(OTHER, "app", ARM, &[], 1000, 60);
        assert_eq!(check(&authority, &foreign, 1000), Err(TokenRefusal::Issuer));
    }

    #[test]
    fn a_token_of_another_key_or_with_a_changed_byte_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let ours = authority(&directory, "ours.pem");
        let theirs = authority(&directory, "theirs.pem");
        let token = theirs.mint(TENANT, "app", ARM, &[], 1000, 60);
        assert_eq!(check(&ours, &token, 1000), Err(TokenRefusal::Invalid));
        let token = ours.mint(TENANT, "app", ARM, &[], 1000, 60);
        for position in (0..token.len() - 1).step_by(17) {
            let mut bytes = token.clone().into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(check(&ours, &changed, 1000).is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_token_with_no_algorithm_or_a_symmetric_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority(&directory, "key.pem");
        let token = authority.mint(TENANT, "app", ARM, &[], 1000, 60);
        let payload = token.split('.').nth(1).unwrap();
        let none = public_api::encoding::to_base64url(br#"{"alg":"none"}"#);
        assert_eq!(check(&authority, &format!("{none}.{payload}."), 1000), Err(TokenRefusal::Invalid));
        let claims: Claims =
            serde_json::from_slice(&public_api::encoding::from_base64_any(payload).unwrap()).unwrap();
        let modulus = authority.key.public.n.clone().unwrap();
        let secret = jsonwebtoken::EncodingKey::from_secret(modulus.as_bytes());
        let confused = encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
        assert_eq!(check(&authority, &confused, 1000), Err(TokenRefusal::Invalid));
    }

    #[test]
    fn the_key_survives_a_restart_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let token = authority(&directory, "key.pem").mint(TENANT, "app", ARM, &[], 1000, 60);
        assert!(check(&authority(&directory, "key.pem"), &token, 1000).is_ok());
        let mode = std::fs::metadata(directory.path().join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
