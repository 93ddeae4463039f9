//! Tenants, subscriptions and clients of the configuration, and what a caller may do with them.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;

use public_api::assignment::Assignment;

use crate::config::{Access, Client, ConfigError, Identity, Subscription, Tenant, read_text};

/// The directory: read once, at start.
#[derive(Clone, Debug)]
pub struct Directory {
    identity: Identity,
    secrets: Vec<[u8; 32]>,
}

/// A client whose token was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its id.
    pub client_id: String,
    /// Its tenant.
    pub tenant: String,
}

/// What a caller gets to hear about a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Granted,
    /// The subscription is in the caller's tenant, but not open to the caller for that.
    Forbidden,
    /// As far as the caller's tenant is concerned there is no such subscription.
    Unknown,
}

impl Directory {
    /// Resolves the clients' secrets.
    pub fn new(identity: &Identity) -> Result<Self, ConfigError> {
        let secrets = identity.client.iter().map(secret_hash).collect::<Result<_, _>>()?;
        Ok(Self { identity: identity.clone(), secrets })
    }

    /// The tenant that a path names: a GUID, or `adfs` for the home tenant.
    pub fn tenant(&self, name: &str) -> Option<&Tenant> {
        let id = if name.eq_ignore_ascii_case("adfs") { &self.identity.home_tenant } else { name };
        self.identity.tenant.iter().find(|tenant| tenant.id.eq_ignore_ascii_case(id))
    }

    /// The installation's own tenant.
    pub fn home(&self) -> &str {
        &self.identity.home_tenant
    }

    /// Ids of all tenants.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.identity.tenant.iter().map(|tenant| tenant.id.as_str())
    }

    /// The client that proves to know its secret. Takes the same time for a wrong secret and for an unknown client.
    pub fn sign_in(&self, tenant: &str, client_id: &str, secret: &str) -> Option<&Client> {
        let given = sha256(secret.as_bytes());
        let mut found = None;
        for (client, expected) in self.identity.client.iter().zip(&self.secrets) {
            let right = verify_slices_are_equal(&given, expected).is_ok();
            if right && client.client_id.eq_ignore_ascii_case(client_id) && client.tenant == tenant {
                found = Some(client);
            }
        }
        found
    }

    /// Whether a client is still configured.
    pub fn client(&self, client_id: &str, tenant: &str) -> Option<&Client> {
        self.identity.client.iter().find(|client| client.client_id == client_id && client.tenant == tenant)
    }

    /// Subscriptions that a caller may use.
    pub fn subscriptions(&self, caller: &Caller) -> Vec<&Subscription> {
        let Some(client) = self.client(&caller.client_id, &caller.tenant) else { return Vec::new() };
        let mine = |subscription: &&Subscription| client.subscriptions.contains(&subscription.id);
        self.identity.subscription.iter().filter(mine).collect()
    }

    /// What a client's tokens say of its rights over subscriptions, in the names of Azure's built-in roles.
    pub fn assignments(client: &Client) -> Vec<Assignment> {
        let role = match client.access {
            Access::Read => "Reader",
            Access::Write => "Contributor",
        };
        let assignment =
            |id: &String| Assignment { role: role.to_owned(), scope: format!("/subscriptions/{id}") };
        client.subscriptions.iter().map(assignment).collect()
    }

    /// A subscription by its id.
    pub fn subscription(&self, id: &str) -> Option<&Subscription> {
        self.identity.subscription.iter().find(|subscription| subscription.id.eq_ignore_ascii_case(id))
    }

    /// Whether a caller may do something in a subscription.
    pub fn judge(&self, caller: &Caller, subscription: &str, wanted: Access) -> Verdict {
        let Some(found) = self.subscription(subscription) else { return Verdict::Unknown };
        if found.tenant != caller.tenant {
            return Verdict::Unknown;
        }
        let client = self.client(&caller.client_id, &caller.tenant);
        let granted =
            client.is_some_and(|client| client.subscriptions.contains(&found.id) && client.access >= wanted);
        if granted { Verdict::Granted } else { Verdict::Forbidden }
    }
}

fn secret_hash(client: &Client) -> Result<[u8; 32], ConfigError> {
    if let Some(path) = &client.secret_file {
        return Ok(sha256(read_text(path)?.trim_end().as_bytes()));
    }
    let mut hash = [0; 32];
    let text = client.secret_sha256.as_deref().unwrap_or_default();
    hex::decode_to_slice(text, &mut hash).map_err(|error| ConfigError::Value {
        key: "identity.client.secret_sha256".to_owned(),
        reason: error.to_string(),
    })?;
    Ok(hash)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
