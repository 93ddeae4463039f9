//! The installation: identities, certificates, directories, and one configuration file for each service.
//!
//! What is made once stays (ids, keys, secrets); configuration files are written anew at each `casemate up`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aws_lc_rs::{digest, rand};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::configs;
use super::pki::{Authority, Usage, write_secret};
use super::ports::Ports;
use super::programs;
use super::supervise::{Plan, Service};
use crate::profile::Profile;

/// What identifies an installation; made once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Tenant (directory) GUID.
    pub tenant_id: String,
    /// Subscription GUID.
    pub subscription_id: String,
    /// The administrator's client GUID.
    pub client_id: String,
}

/// What `casemate up` was told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First of five consecutive ports.
    pub base_port: u16,
    /// `auto`, `kvm` or `tcg`.
    pub accelerator: String,
    /// QEMU's program.
    pub qemu: String,
}

/// Region of a one-machine platform.
pub const REGION: &str = "local";
/// Name of the one host, also in its certificate.
pub const HOST_NAME: &str = "host-local";

/// Everything that the configurations are made of.
#[derive(Debug)]
pub struct Layout {
    /// The data directory.
    pub data: PathBuf,
    /// Sockets.
    pub runtime: PathBuf,
    /// Ports.
    pub ports: Ports,
    /// Ids.
    pub identity: Identity,
    /// Certificates.
    pub authority: Authority,
    /// What `casemate up` was told.
    pub settings: Settings,
}

impl Layout {
    /// Base URL of a port.
    pub fn url(&self, port: u16) -> String {
        let _ = self;
        format!("https://localhost:{port}")
    }

    /// File with the administrator's secret.
    pub fn client_secret(&self) -> PathBuf {
        self.data.join("client/secret")
    }

    /// Root certificate of the software secure processor.
    pub fn development_root(&self) -> PathBuf {
        self.data.join("secure-processor/root.pem")
    }
}

/// Makes or renews the installation in `data_dir`; returns the client's profile.
pub fn install(data_dir: &Path, settings: Settings) -> Result<Profile> {
    for name in
        ["client", "control-plane", "attestation", "keys", "host", "secure-processor", "images", "logs"]
    {
        let dir = data_dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let layout = Layout {
        data: data_dir.to_path_buf(),
        runtime: runtime_dir(data_dir),
        ports: Ports::from_base(settings.base_port),
        identity: identity(data_dir)?,
        authority: Authority::ensure(&data_dir.join("authority"))?,
        settings,
    };
    if !layout.client_secret().exists() {
        write_secret(&layout.client_secret(), &random_hex()?)?;
    }
    write_plan(&layout)?;
    let profile = profile(&layout);
    fs::write(Profile::path(data_dir), toml::to_string(&profile)?)?;
    Ok(profile)
}

/// Sockets need short paths, so they do not lie under the data directory.
fn runtime_dir(data_dir: &Path) -> PathBuf {
    let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let hash = digest::digest(&digest::SHA256, data_dir.as_os_str().as_encoded_bytes());
    let tag: String = hex::encode(hash).chars().take(8).collect();
    base.join(format!("casemate-{}-{tag}", nix::unistd::geteuid()))
}

fn identity(data_dir: &Path) -> Result<Identity> {
    let path = data_dir.join("installation.toml");
    if path.exists() {
        let text = fs::read_to_string(&path)?;
        return toml::from_str(&text).with_context(|| format!("reading {}", path.display()));
    }
    let new = || uuid::Uuid::new_v4().to_string();
    let identity = Identity { tenant_id: new(), subscription_id: new(), client_id: new() };
    fs::write(&path, toml::to_string(&identity)?).with_context(|| format!("writing {}", path.display()))?;
    Ok(identity)
}

fn random_hex() -> Result<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    Ok(hex::encode(bytes))
}

fn profile(layout: &Layout) -> Profile {
    Profile {
        control_plane: layout.url(layout.ports.control_plane),
        attestation: layout.url(layout.ports.attestation),
        keys: layout.url(layout.ports.keys),
        ca: layout.authority.certificate(),
        tenant_id: layout.identity.tenant_id.clone(),
        subscription_id: layout.identity.subscription_id.clone(),
        client_id: layout.identity.client_id.clone(),
        client_secret_file: layout.client_secret(),
        location: REGION.to_owned(),
        development_root: Some(layout.development_root()),
    }
}

/// Writes every service's configuration, and the plan that the supervisor runs.
fn write_plan(layout: &Layout) -> Result<()> {
    let host = layout.authority.issue(HOST_NAME, Usage::Client)?;
    let server = |name: &str| layout.authority.issue(name, Usage::Server);
    // Not "keys": a certificate of that name, of an earlier version, has no vaults in it.
    let vaults = layout.authority.issue("vaults", Usage::Vaults)?;
    let parts = [
        ("secure-processor", "soft-pspd", configs::secure_processor(layout)),
        ("attestation", "casemate-attestation", configs::attestation(layout, &server("attestation")?)?),
        (
            "control-plane",
            "casemate-control-plane",
            configs::control_plane(layout, &server("control-plane")?, &server("hosts")?),
        ),
        ("keys", "casemate-keys", configs::keys(layout, &vaults)),
        ("host", "casemate-host-agent", configs::host(layout, &host)?),
    ];
    let mut plan = Plan { runtime_dir: layout.runtime.clone(), services: Vec::new() };
    for (name, program, config) in parts {
        plan.services.push(service(layout, name, program, &config)?);
    }
    fs::write(Plan::path(&layout.data), toml::to_string(&plan)?)?;
    Ok(())
}

fn service(layout: &Layout, name: &str, program: &str, config: &Value) -> Result<Service> {
    let path = layout.data.join(name).join("config.toml");
    fs::write(&path, toml::to_string(config)?).with_context(|| format!("writing {}", path.display()))?;
    let program = programs::ours(program)?.to_string_lossy().into_owned();
    let config = path.to_string_lossy().into_owned();
    let afterwards = match name {
        "host" => vec![program.clone(), "--config".to_owned(), config.clone(), "drain".to_owned()],
        _ => Vec::new(),
    };
    Ok(Service { name: name.to_owned(), command: vec![program, "--config".to_owned(), config], afterwards })
}
