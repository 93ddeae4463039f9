//! Verbs and decisions: no HTTP, no SQL.

pub mod attestation_providers;
pub mod body;
pub mod disks;
pub mod encryption_sets;
pub mod groups;
pub mod image_resources;
pub mod images;
pub mod launch;
pub mod names;
pub mod observation;
pub mod operations;
pub mod power;
pub mod provider_properties;
pub mod refusal;
pub mod role_assignments;
pub mod role_definitions;
pub mod sizes;
pub mod state;
pub mod stored;
pub mod validation;
pub mod vault_properties;
pub mod vaults;
pub mod views;
pub mod vm;
pub mod vm_body;
pub mod vm_keys;
pub mod vm_references;
pub mod vm_update;
pub mod vms;

mod os_profile;

use jiff::Timestamp;

use crate::config::Config;
use crate::identity::{Directory, TokenAuthority};
use crate::store::Store;

/// Everything that requests and reconcilers share. Holds no state of its own: that is in the store.
#[derive(Clone)]
pub struct ControlPlane {
    /// Configuration.
    pub config: Config,
    /// The database.
    pub store: Store,
    /// Tokens.
    pub tokens: TokenAuthority,
    /// Tenants, subscriptions, clients.
    pub directory: Directory,
    /// Images.
    pub catalogue: images::Catalogue,
    /// PEM bundle that new VMs are bound to.
    pub trust_bundle: String,
    /// Signs the URLs of serial logs.
    pub url_key: std::sync::Arc<aws_lc_rs::hmac::Key>,
}

/// Milliseconds since 1970.
pub fn now_millis() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Unix seconds.
pub fn now_seconds() -> i64 {
    Timestamp::now().as_second()
}

/// A stored time as Resource Manager writes it.
pub fn time_text(millis: i64) -> String {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
