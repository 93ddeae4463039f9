//! The planted keys, and the requests that carry them where they do not belong.

use aws_lc_rs::rsa::KeySize;
use serde_json::{Value, json};

use super::needles::Needles;
use crate::support::issuer::decoded;
use crate::support::jwk;
use crate::support::vault::{platform_conditions, policy};

/// A private key as a JWK, and its secret members.
pub struct Planted {
    pub name: &'static str,
    pub jwk: Value,
    pub secrets: &'static [&'static str],
}

pub fn planted() -> [Planted; 3] {
    let random: Vec<u8> =
        [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].iter().flat_map(|id| *id.as_bytes()).collect();
    [
        Planted { name: "rsa", jwk: jwk::rsa(KeySize::Rsa2048), secrets: &["d", "p", "q", "dp", "dq", "qi"] },
        Planted { name: "ec", jwk: jwk::ec("P-256"), secrets: &["d"] },
        Planted { name: "oct", jwk: jwk::oct(&random), secrets: &["k"] },
    ]
}

impl Planted {
    /// Adds every secret member.
    pub fn hide_in(&self, needles: &mut Needles) {
        for member in self.secrets {
            needles.add(&format!("{} of {}", member, self.name), &decoded(self.secret(member)));
        }
    }

    pub fn secret(&self, member: &str) -> &str {
        self.jwk[member].as_str().expect("a member")
    }

    /// A good import.
    pub fn import(&self) -> Value {
        json!({"key": self.jwk})
    }

    /// A good import of a key that may be released.
    pub fn exportable(&self) -> Value {
        json!({
            "key": self.jwk, "Hsm": true, "attributes": {"exportable": true},
            "release_policy": {"data": policy(&platform_conditions())},
        })
    }

    /// Imports that are refused, each with the whole key or a secret of it where it does not belong.
    pub fn bad_imports(&self) -> Vec<String> {
        let mut bodies: Vec<String> = self
            .secrets
            .iter()
            .flat_map(|member| self.misplaced(member))
            .map(|body| body.to_string())
            .collect();
        let good = self.import().to_string();
        bodies.push(good[..good.len() - 1].to_owned());
        bodies.push(format!("{good} {good}"));
        bodies.push(self.jwk.to_string());
        bodies.push(json!([self.jwk]).to_string());
        bodies.push(json!(good).to_string());
        bodies.push(json!({"key": good}).to_string());
        bodies.push(json!({"key": [self.jwk]}).to_string());
        bodies
    }

    /// One secret in every place of an import that there is.
    fn misplaced(&self, member: &str) -> Vec<Value> {
        let secret = self.secret(member);
        let mut bodies = Vec::new();
        for wrong in
            [json!([secret]), json!({"value": secret}), json!(decoded(secret)), json!(format!("{secret}*"))]
        {
            bodies.push(self.with_member(member, wrong));
        }
        for name in ["kty", "crv", "n", "e", "x", "y", "t", "key_hsm", "key_ops", "kid"] {
            bodies.push(self.with_member(name, json!(secret)));
            bodies.push(self.with_member(name, json!([secret])));
        }
        for name in ["Hsm", "attributes", "tags", "release_policy", "key", "secret"] {
            bodies.push(self.with(name, json!(secret)));
        }
        for name in ["enabled", "nbf", "exp", "created", "recoveryLevel", "exportable", "secret"] {
            bodies.push(self.with("attributes", json!({name: secret})));
        }
        for name in ["contentType", "data", "immutable", "secret"] {
            bodies.push(self.with("release_policy", json!({name: secret})));
        }
        bodies.push(self.with("tags", json!({"a": [secret]})));
        bodies
    }

    fn with(&self, name: &str, value: Value) -> Value {
        let mut body = self.import();
        body[name] = value;
        body
    }

    fn with_member(&self, name: &str, value: Value) -> Value {
        let mut body = self.import();
        body["key"][name] = value;
        body
    }

    /// The key, sent to paths that take none.
    pub fn bad_elsewhere(&self) -> Vec<(&'static str, String, Value)> {
        let name = self.name;
        let secret = self.secret(self.secrets[0]);
        let key = |rest: &str| format!("/keys/{name}{rest}");
        vec![
            ("POST", key("/create"), self.import()),
            ("POST", key("/create"), self.jwk.clone()),
            ("POST", key("/create"), json!({"kty": secret})),
            ("POST", key("/create"), json!({"kty": "EC", "crv": secret})),
            ("POST", key("/create"), json!({"kty": "RSA", "key_size": secret})),
            ("PATCH", key(""), self.import()),
            ("PATCH", key(""), json!({"key_ops": [secret]})),
            ("POST", key("/sign"), self.import()),
            ("POST", key("/sign"), json!({"alg": secret, "value": secret})),
            ("POST", key("/sign"), json!({"alg": "RS256", "value": self.jwk})),
            ("POST", key("/decrypt"), json!({"alg": "RSA-OAEP", "value": secret})),
            ("POST", key("/unwrapkey"), json!({"alg": secret, "value": secret})),
            ("POST", key("/release"), json!({"target": secret, "nonce": secret})),
            ("POST", key("/rotate"), self.import()),
            ("PUT", key("/rotationpolicy"), self.import()),
            ("PUT", key("/versions"), self.import()),
            ("POST", "/keys/restore".to_owned(), self.import()),
            ("POST", "/keys/restore".to_owned(), json!({"value": secret})),
            ("POST", "/rng".to_owned(), self.import()),
            ("POST", "/nowhere".to_owned(), self.import()),
        ]
    }
}
