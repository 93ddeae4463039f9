//! A VM as the key service sees one: tokens about its guest state, from an issuer that the tests' key service believes.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use public_api::client::{ClientError, Connection, KeyClient};
use public_api::encoding::to_base64url;
use public_api::keys::KeyReleaseParameters;
use serde_json::{Value, json};
use uuid::Uuid;

/// The issuer of its tokens.
pub const ISSUER: &str = "https://attest.casemate.test";
/// Its id.
pub const VM: &str = "0F5A2C3E-1111-4222-8333-444455556666";

/// The VM, with the key of its tokens' issuer.
pub struct Guest {
    key: KeyPair,
    keys: KeyClient,
    runtime: tokio::runtime::Runtime,
}

/// Makes the issuer's key and publishes it in this folder.
pub fn publish(directory: &Path) {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    std::fs::write(directory.join("issuer.json"), json!({"keys": [jwk(&key, "issuer", "sig")]}).to_string())
        .unwrap();
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    std::fs::write(directory.join("issuer.der"), der.as_ref()).unwrap();
}

/// A release policy that asks for nothing but a development root.
pub fn policy() -> String {
    let condition = json!({"claim": "x-casemate-trust-root", "equals": "development"});
    json!({"version": "1.0.0", "anyOf": [{"authority": ISSUER, "allOf": [condition]}]}).to_string()
}

fn jwk(key: &KeyPair, kid: &str, purpose: &str) -> Value {
    let number = |number: &[u8]| to_base64url(number);
    let public = key.public_key();
    let n = number(public.modulus().big_endian_without_leading_zero());
    let e = number(public.exponent().big_endian_without_leading_zero());
    json!({"kid": kid, "kty": "RSA", "use": purpose, "n": n, "e": e})
}

/// The key service, with a token by client credentials (RFC 6749 section 4.4).
async fn signed_in(profile: &toml::Table) -> KeyClient {
    let text = |name: &str| profile[name].as_str().unwrap();
    let ca = std::fs::read_to_string(text("ca")).unwrap();
    let connect = |name: &str| Connection::new(text(name), &ca, Duration::from_secs(20)).unwrap();
    let secret = std::fs::read_to_string(text("client_secret_file")).unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", text("client_id")),
        ("client_secret", &secret),
        ("scope", &format!("{}/.default", text("keys"))),
    ];
    let path = format!("/{}/oauth2/v2.0/token", text("tenant_id"));
    let answer: Value = connect("control_plane").post_form(&path, &form).await.unwrap();
    KeyClient(connect("keys").with_bearer(answer["access_token"].as_str().unwrap()))
}

impl Guest {
    /// The VM that the issuer in this folder speaks of, and the profile of who may release.
    pub fn new(directory: &Path, profile: &toml::Table) -> Self {
        let key = KeyPair::from_pkcs8(&std::fs::read(directory.join("issuer.der")).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let keys = runtime.block_on(signed_in(profile));
        Self { key, keys, runtime }
    }

    /// Has the key released for the guest state of this generation; `released`, or the code of the denial.
    pub fn release(&self, name: &str, generation: u64) -> String {
        let target = self.token(generation);
        let asked = KeyReleaseParameters { target, nonce: None, enc: None, successor: None };
        match self.runtime.block_on(self.keys.release(&format!("/keys/{name}"), &asked)) {
            Ok(_) => "released".to_owned(),
            Err(ClientError::Denied { denial, .. }) => denial.code,
            Err(error) => panic!("{error:?}"),
        }
    }

    fn token(&self, generation: u64) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut transfer = jwk(&self.key, "HCLTransferKey", "enc");
        transfer["key_ops"] = json!(["encrypt"]);
        let claims = json!({
            "iss": ISSUER, "iat": now, "nbf": now, "exp": now + 28_800, "jti": Uuid::new_v4(),
            "x-casemate-trust-root": "development",
            "x-ms-inittime": {"vmId": VM},
            "x-ms-runtime": {"keys": [transfer], "guest-state": {"vm-id": VM, "generation": generation}},
        });
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": "issuer"});
        let [header, claims] = [header, claims].map(|part| to_base64url(part.to_string().as_bytes()));
        let message = format!("{header}.{claims}");
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", to_base64url(&signature))
    }
}
