//! The configuration file: one struct a section, parsed once, unknown keys refused.
//!
#![doc = "```toml"]
#![doc = include_str!("../control-plane.example.toml")]
#![doc = "```"]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use internal_api::launch::KeyCheck;
use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Database and signing key lie here.
    pub data_dir: PathBuf,
    /// Address of the public interface; port 0 takes a free one.
    pub listen: SocketAddr,
    /// URL under which clients reach it, for example `https://localhost:8443`. Its issuer and audience derive from it.
    pub public_url: String,
    /// PEM chain of the public interface.
    pub tls_certificate: PathBuf,
    /// PEM (PKCS#8) key of the public interface.
    pub tls_key: PathBuf,
    /// The one region of this installation, for example `local`.
    pub region: String,
    /// Directory with `catalog.json` and the images.
    pub image_dir: PathBuf,
    /// Where the hosts' serial logs lie, if this machine can read them: a path with `{vm_id}` (upper case),
    /// `{vm_id_lower}` or `{name}` in it.
    #[serde(default)]
    pub serial_log: Option<String>,
    /// Whether hosts with a software secure processor may carry VMs.
    #[serde(default)]
    pub allow_development_roots: bool,
    /// PEM bundle under which the attestation and key services verify; every VM is bound to it.
    pub trust_bundle: PathBuf,
    /// Base URL of the attestation service, as its tokens' issuer names it.
    pub attestation_url: String,
    /// Audience of the control plane's own tokens for it.
    #[serde(default = "default_attestation_audience")]
    pub attestation_audience: String,
    /// The key service.
    pub keys: Keys,
    /// How running VMs make sure that they may still have their keys; every new launch document says so.
    #[serde(default)]
    pub key_check: KeyCheckConfig,
    /// The host interface.
    pub hosts: Hosts,
    /// Tenants, subscriptions, clients.
    pub identity: Identity,
}

/// Where platform keys are made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Base URL.
    pub url: String,
    /// PEM bundle under which it verifies.
    pub ca: PathBuf,
    /// Audience of tokens for it, for example `https://vault.azure.net`.
    pub audience: String,
    /// The key service's `[vaults] domain`: a vault is at `https://{name}.{vault_domain}` with the port of `url`. Without it
    /// there is the one vault at `url`.
    #[serde(default)]
    pub vault_domain: Option<String>,
    /// The same of managed HSMs.
    #[serde(default)]
    pub managed_hsm_domain: Option<String>,
    /// How often it is asked for newer versions of the keys of disk encryption sets that follow them.
    #[serde(default = "default_poll")]
    pub poll_seconds: u32,
}

impl Keys {
    /// `{domain}[:port]`, with the port of `url`.
    pub fn authority(&self, domain: &str) -> String {
        match url::Url::parse(&self.url).ok().and_then(|url| url.port()) {
            Some(port) => format!("{domain}:{port}"),
            None => domain.to_owned(),
        }
    }

    /// The audience of tokens for the named vault that a key's URL is of; nothing if it is of none.
    pub fn named_audience_of(&self, key: &str) -> Option<String> {
        let host_of = |text: &str| Some(url::Url::parse(text).ok()?.host_str()?.to_ascii_lowercase());
        let host = host_of(key).filter(|host| Some(host) != host_of(&self.url).as_ref())?;
        let domains = [&self.vault_domain, &self.managed_hsm_domain];
        let domain = domains.into_iter().flatten().find(|domain| host.ends_with(&format!(".{domain}")))?;
        Some(format!("https://{}", self.authority(domain)))
    }

    /// Audiences of tokens for named vaults.
    pub fn named_audiences(&self) -> Vec<String> {
        let domains = [&self.vault_domain, &self.managed_hsm_domain];
        domains.into_iter().flatten().map(|domain| format!("https://{}", self.authority(domain))).collect()
    }
}

/// Revocation of the keys of running VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyCheckConfig {
    /// Seconds between two questions of a VM whether it may still have its key.
    pub interval_seconds: u32,
    /// Seconds from the first refusal to the end of the VM.
    pub grace_seconds: u32,
}

impl Default for KeyCheckConfig {
    fn default() -> Self {
        let KeyCheck { interval_seconds, grace_seconds } = KeyCheck::default();
        Self { interval_seconds, grace_seconds }
    }
}

impl From<KeyCheckConfig> for KeyCheck {
    fn from(config: KeyCheckConfig) -> Self {
        Self { interval_seconds: config.interval_seconds, grace_seconds: config.grace_seconds }
    }
}

/// The interface for host agents.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// Address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// PEM chain.
    pub tls_certificate: PathBuf,
    /// PEM (PKCS#8) key.
    pub tls_key: PathBuf,
    /// PEM bundle under which host certificates verify.
    pub client_ca: PathBuf,
    /// A host that was silent for longer gets no new VMs.
    #[serde(default = "default_host_timeout")]
    pub timeout_seconds: u32,
    /// How long a VM waits for a host to come up before its creation fails.
    #[serde(default = "default_placement_timeout")]
    pub placement_timeout_seconds: u32,
}

/// Who may sign in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The installation's own tenant: `adfs` in a path means it, and service tokens carry it.
    pub home_tenant: String,
    /// Lifetime of callers' tokens.
    #[serde(default = "default_token_lifetime")]
    pub token_lifetime_seconds: u32,
    /// Further audiences that callers may ask tokens for (vaults by their own names).
    #[serde(default)]
    pub audiences: Vec<String>,
    /// `[[identity.tenant]]`.
    #[serde(default)]
    pub tenant: Vec<Tenant>,
    /// `[[identity.subscription]]`.
    #[serde(default)]
    pub subscription: Vec<Subscription>,
    /// `[[identity.client]]`.
    #[serde(default)]
    pub client: Vec<Client>,
}

/// A tenant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// GUID.
    pub id: String,
    /// Name for people.
    pub name: String,
}

/// A subscription.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// GUID.
    pub id: String,
    /// GUID of its tenant.
    pub tenant: String,
    /// Name for people.
    pub name: String,
}

/// A service principal.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// GUID.
    pub client_id: String,
    /// GUID of its tenant.
    pub tenant: String,
    /// SHA-256 (hex) of the secret. Secrets must be random: nothing slows down a guess.
    #[serde(default)]
    pub secret_sha256: Option<String>,
    /// File with the secret, instead of its hash.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// App roles in its tokens, for example `Key Vault Crypto Officer`.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Subscriptions that it may use.
    #[serde(default)]
    pub subscriptions: Vec<String>,
    /// What it may do there.
    #[serde(default)]
    pub access: Access,
}

/// What a client may do in its subscriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Read only.
    Read,
    /// Read and change.
    #[default]
    Write,
}

fn default_attestation_audience() -> String {
    "https://attest.azure.net".to_owned()
}

fn default_poll() -> u32 {
    60
}

fn default_host_timeout() -> u32 {
    90
}

fn default_placement_timeout() -> u32 {
    300
}

fn default_token_lifetime() -> u32 {
    3600
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, or an unknown or missing key.
    #[error("{path} is not a valid configuration")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be meant.
    #[error("{key}: {reason}")]
    Value {
        /// Which key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path)?;
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types cannot: references between sections, spellings of GUIDs and URLs.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, url) in [
            ("public_url", &self.public_url),
            ("attestation_url", &self.attestation_url),
            ("keys.url", &self.keys.url),
        ] {
            let parsed = url::Url::parse(url).map_err(|error| invalid(key, error.to_string()))?;
            if parsed.scheme() != "https" || url.ends_with('/') {
                return Err(invalid(key, "must begin with https:// and not end with a slash"));
            }
        }
        if self.region.is_empty()
            || !self.region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        {
            return Err(invalid("region", "must be lower-case letters and digits"));
        }
        self.identity.check()
    }

    /// The path of a VM's serial log on this machine.
    pub fn serial_log_path(&self, vm_id: &str, name: &str) -> Option<PathBuf> {
        let pattern = self.serial_log.as_ref()?;
        let path = pattern
            .replace("{vm_id}", vm_id)
            .replace("{vm_id_lower}", &vm_id.to_ascii_lowercase())
            .replace("{name}", name);
        Some(PathBuf::from(path))
    }
}

impl Identity {
    fn check(&self) -> Result<(), ConfigError> {
        let tenants: BTreeSet<&str> = self.tenant.iter().map(|tenant| tenant.id.as_str()).collect();
        let known = |key: &str, tenant: &str| match tenants.contains(tenant) {
            true => Ok(()),
            false => Err(invalid(key, format!("no [[identity.tenant]] has the id {tenant}"))),
        };
        known("identity.home_tenant", &self.home_tenant)?;
        for tenant in &self.tenant {
            guid("identity.tenant.id", &tenant.id)?;
        }
        for subscription in &self.subscription {
            guid("identity.subscription.id", &subscription.id)?;
            known("identity.subscription.tenant", &subscription.tenant)?;
        }
        self.client.iter().try_for_each(|client| {
            guid("identity.client.client_id", &client.client_id)?;
            known("identity.client.tenant", &client.tenant)?;
            self.check_client(client)
        })
    }

    fn check_client(&self, client: &Client) -> Result<(), ConfigError> {
        for id in &client.subscriptions {
            let found = self.subscription.iter().find(|subscription| subscription.id == *id);
            if found.is_none_or(|subscription| subscription.tenant != client.tenant) {
                let reason = format!("{id} is no subscription of the client's tenant");
                return Err(invalid("identity.client.subscriptions", reason));
            }
        }
        match (&client.secret_sha256, &client.secret_file) {
            (Some(hash), None) if hex::decode(hash).is_ok_and(|bytes| bytes.len() == 32) => Ok(()),
            (Some(_), None) => Err(invalid("identity.client.secret_sha256", "must be 64 hex characters")),
            (None, Some(_)) => Ok(()),
            _ => Err(invalid("identity.client", "give secret_sha256 or secret_file, and not both")),
        }
    }
}

fn guid(key: &str, text: &str) -> Result<(), ConfigError> {
    match uuid::Uuid::try_parse(text) {
        Ok(parsed) if parsed.to_string() == text => Ok(()),
        _ => Err(invalid(key, format!("{text:?} is not a lower-case GUID"))),
    }
}

fn invalid(key: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), reason: reason.into() }
}

/// Reads a text file; the error names it.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_good_and_shows_the_defaults() {
        let text = include_str!("../control-plane.example.toml");
        let config: Config = toml::from_str(text).unwrap();
        config.check().unwrap();
        let full: String = text
            .lines()
            .map(|line| {
                format!("{}\n", line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
            })
            .collect();
        let explicit: Config = toml::from_str(&full).unwrap();
        assert_eq!(explicit.hosts.timeout_seconds, config.hosts.timeout_seconds);
        assert_eq!(explicit.hosts.placement_timeout_seconds, config.hosts.placement_timeout_seconds);
        assert_eq!(explicit.identity.token_lifetime_seconds, config.identity.token_lifetime_seconds);
        assert_eq!(explicit.identity.client[0].access, config.identity.client[0].access);
        assert_eq!(explicit.attestation_audience, config.attestation_audience);
        assert_eq!(explicit.allow_development_roots, config.allow_development_roots);
        assert_eq!(
            explicit.serial_log_path("A-B", "n").unwrap(),
            Path::new("/var/lib/casemate/host/vms/A-B/serial.log")
        );
    }
}
