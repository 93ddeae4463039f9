//! Where the platform is and who we are there: written by `casemate up`, read by every other command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use public_api::client::{AttestationClient, Connection, KeyClient};
use serde::{Deserialize, Serialize};

use crate::arm::Arm;
use crate::failure::Failure;

/// The tenant's view of one platform.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Base URL of the control plane.
    pub control_plane: String,
    /// Base URL of the attestation service; the issuer of its tokens.
    pub attestation: String,
    /// Base URL of the key service.
    pub keys: String,
    /// PEM of the certificate authority that all three are checked against.
    pub ca: PathBuf,
    /// Tenant (directory) id.
    pub tenant_id: String,
    /// Subscription id.
    pub subscription_id: String,
    /// Client id of the tenant's administrator.
    pub client_id: String,
    /// File with the client's secret.
    pub client_secret_file: PathBuf,
    /// Region of the local host.
    pub location: String,
    /// Root certificate of the software secure processor, on a development installation.
    pub development_root: Option<PathBuf>,
}

const TIMEOUT: Duration = Duration::from_secs(60);

/// The data directory: given, or `$XDG_DATA_HOME/casemate`, or `~/.local/share/casemate`.
pub fn data_dir(given: Option<PathBuf>) -> Result<PathBuf> {
    let dir = match given {
        Some(dir) => dir,
        None => match std::env::var_os("XDG_DATA_HOME") {
            Some(base) => PathBuf::from(base).join("casemate"),
            None => {
                let home = std::env::var_os("HOME").context("neither --data-dir nor HOME is set")?;
                PathBuf::from(home).join(".local/share/casemate")
            }
        },
    };
    std::path::absolute(&dir).with_context(|| format!("making {} absolute", dir.display()))
}

impl Profile {
    /// Where the profile lies.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("client/profile.toml")
    }

    /// The profile of the platform in `data_dir`.
    pub fn load(data_dir: &Path) -> Result<Self> {
        let path = Self::path(data_dir);
        let Ok(text) = std::fs::read_to_string(&path) else {
            let message = format!("there is no platform in {}", data_dir.display());
            return Err(Failure::you(message, "start one with `casemate up`, or give --data-dir"));
        };
        toml::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Resource Manager, signed in.
    pub async fn arm(&self) -> Result<Arm> {
        let audience = format!("{}/", self.control_plane);
        let token = self.token(&audience).await?;
        Ok(Arm::new(self.connect(&self.control_plane)?.with_bearer(token), &self.subscription_id))
    }

    /// The key service, signed in.
    pub async fn key_client(&self) -> Result<KeyClient> {
        let token = self.token(&self.keys).await?;
        Ok(KeyClient(self.connect(&self.keys)?.with_bearer(token)))
    }

    /// The attestation service, signed in.
    pub async fn attestation_client(&self) -> Result<AttestationClient> {
        let token = self.token(&self.attestation).await?;
        Ok(AttestationClient(self.connect(&self.attestation)?.with_bearer(token)))
    }

    /// A connection that trusts the installation's authority and nothing else.
    pub fn connect(&self, base: &str) -> Result<Connection> {
        let ca =
            std::fs::read_to_string(&self.ca).with_context(|| format!("reading {}", self.ca.display()))?;
        Ok(Connection::new(base, &ca, TIMEOUT)?)
    }

    /// A token by client credentials (RFC 6749 section 4.4).
    async fn token(&self, audience: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
        }
        let secret = std::fs::read_to_string(&self.client_secret_file)
            .with_context(|| format!("reading {}", self.client_secret_file.display()))?;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("client_secret", secret.trim()),
            ("scope", &format!("{audience}/.default")),
        ];
        let path = format!("/{}/oauth2/v2.0/token", self.tenant_id);
        let answer: Answer =
            self.connect(&self.control_plane)?.post_form(&path, &form).await.context("signing in")?;
        Ok(answer.access_token)
    }
}
