//! The key service as reconcilers need it: a key is there, may be followed by another, is the newest, is gone. All can be asked
//! for any number of times.

use std::path::Path;
use std::time::Duration;

use internal_api::paravisor::Failure;
use public_api::client::{ClientError, Connection, KEYS_API_VERSION, KeyClient};
use public_api::keys::{KeyBundle, KeyCreateParameters, SUCCESSOR_TAG};
use serde_json::{Value, json};

use crate::app::now_seconds;
use crate::app::vm::key_in_url;
use crate::config::{Keys, read_text};
use crate::identity::TokenAuthority;

/// Lifetime of the service's own tokens.
const TOKEN_SECONDS: i64 = 300;
/// How long an answer may take; generating a 3072-bit RSA key is the longest.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A key service and the right to use it.
#[derive(Clone)]
pub struct KeyService {
    connection: Connection,
    tokens: TokenAuthority,
    url: String,
    tenant: String,
    audience: String,
}

/// Why a key is not there.
#[derive(Debug)]
pub enum KeyTrouble {
    /// Ask again later.
    Transient(String),
    /// Asking again changes nothing.
    Permanent(Box<Failure>),
}

impl KeyService {
    /// A client that signs in with tokens of its own making.
    pub fn new(
        keys: &Keys,
        tokens: TokenAuthority,
        tenant: &str,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let ca = read_text(Path::new(&keys.ca))?;
        let connection = Connection::new(&keys.url, &ca, TIMEOUT)?;
        let url = keys.url.trim_end_matches('/').to_owned();
        Ok(Self { connection, tokens, url, tenant: tenant.to_owned(), audience: keys.audience.clone() })
    }

    fn client(&self) -> KeyClient {
        let roles = ["Key Vault Crypto Officer".to_owned()];
        let token = self.tokens.mint(
            &self.tenant,
            "control-plane",
            &self.audience,
            &roles,
            now_seconds(),
            TOKEN_SECONDS,
        );
        KeyClient(self.connection.clone().with_bearer(token))
    }

    /// Makes sure that the key exists under this policy, and returns its URL with the version.
    pub async fn ensure(&self, name: &str, parameters: &KeyCreateParameters) -> Result<String, KeyTrouble> {
        let client = self.client();
        let bundle = match client.key(name, "").await {
            Ok(bundle) => bundle,
            Err(error) if is_missing(&error) => {
                client.create(name, parameters).await.map_err(|error| trouble(name, &error))?
            }
            Err(error) => return Err(trouble(name, &error)),
        };
        if policy(&bundle) != wanted_policy(parameters) {
            return Err(KeyTrouble::Permanent(Box::new(foreign_key(name))));
        }
        bundle.key.kid.ok_or_else(|| KeyTrouble::Transient(format!("the key service gave {name} no id")))
    }

    /// Makes sure that a key's owner, who is this control plane, lets another key follow it.
    pub async fn let_follow(&self, url: &str, successor: &str) -> Result<(), KeyTrouble> {
        let Some((name, version)) = key_in_url(url) else {
            return Err(KeyTrouble::Permanent(Box::new(refused(url, "it is no key's URL"))));
        };
        let client = self.client();
        let bundle = client.key(name, version).await.map_err(|error| trouble(name, &error))?;
        let mut tags = bundle.tags;
        if tags.insert(SUCCESSOR_TAG.to_owned(), successor.to_owned()).as_deref() == Some(successor) {
            return Ok(());
        }
        let path = format!("/keys/{name}/{version}?api-version={KEYS_API_VERSION}");
        let body = json!({"tags": tags});
        let sent = client.0.send(reqwest::Method::PATCH, &path, Some(&body)).await;
        sent.map(drop).map_err(|error| trouble(name, &error))
    }

    /// The newest version of a key of this service, by the URL of any of its versions.
    pub async fn newest(&self, url: &str) -> Result<String, KeyTrouble> {
        let ours = url.starts_with(&format!("{}/keys/", self.url));
        let Some((name, _)) = key_in_url(url).filter(|_| ours) else {
            let text = format!("{url} is not a key of {}, the key service of this installation", self.url);
            return Err(KeyTrouble::Permanent(Box::new(refused(url, &text))));
        };
        let bundle = self.client().key(name, "").await.map_err(|error| trouble(name, &error))?;
        bundle.key.kid.ok_or_else(|| KeyTrouble::Transient(format!("the key service gave {name} no id")))
    }

    /// Makes sure that the key is gone.
    pub async fn remove(&self, name: &str) -> Result<(), KeyTrouble> {
        let path = format!("/keys/{name}?api-version={KEYS_API_VERSION}");
        match self.client().0.send(reqwest::Method::DELETE, &path, None).await {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(trouble(name, &error)),
        }
    }
}

fn policy(bundle: &KeyBundle) -> Option<Value> {
    serde_json::from_slice(&bundle.release_policy.as_ref()?.data).ok()
}

fn wanted_policy(parameters: &KeyCreateParameters) -> Option<Value> {
    serde_json::from_slice(&parameters.release_policy.as_ref()?.data).ok()
}

fn is_missing(error: &ClientError) -> bool {
    matches!(error, ClientError::Status { status: 404, .. })
}

fn trouble(name: &str, error: &ClientError) -> KeyTrouble {
    let text = crate::chain(error);
    match error {
        ClientError::Status { status, .. }
            if (400..500).contains(status) && ![401, 408, 429].contains(status) =>
        {
            KeyTrouble::Permanent(Box::new(refused(name, &text)))
        }
        ClientError::Denied { denial, .. } => KeyTrouble::Permanent(Box::new(Failure {
            code: denial.code.clone(),
            claim: denial.claim.clone(),
            expected: denial.expected.clone(),
            actual: denial.actual.clone(),
            rule: denial.rule.clone(),
            remedy: denial.remedy.clone(),
            transient: false,
        })),
        _ => KeyTrouble::Transient(text),
    }
}

pub(crate) fn refused(name: &str, text: &str) -> Failure {
    Failure {
        code: "PlatformKeyRefused".to_owned(),
        claim: format!("key {name} for the VM's guest state"),
        expected: "a key of the key service".to_owned(),
        actual: text.to_owned(),
        rule: "the key service's answer".to_owned(),
        remedy: "the operator must look at the key service's log".to_owned(),
        transient: false,
    }
}

fn foreign_key(name: &str) -> Failure {
    Failure {
        code: "PlatformKeyForeign".to_owned(),
        claim: format!("release policy of the key {name}"),
        expected: "the policy that this control plane writes for the VM".to_owned(),
        actual: "another policy, or none".to_owned(),
        rule: "a platform key is made by the control plane for one VM".to_owned(),
        remedy: "delete the VM and create it anew; the operator should find out who made the key".to_owned(),
        transient: false,
    }
}
