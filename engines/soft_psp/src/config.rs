//! The configuration: one TOML file, unknown keys refused, paths absolute.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use snp::{Product, TcbVersion};

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Keys, certificates and `root.pem` lie here; made at the first start.
    pub state_dir: PathBuf,
    /// The guests' sockets.
    pub runtime_dir: PathBuf,
    /// The host's socket.
    pub host_socket: PathBuf,
    /// Address of the key distribution service's double (plain HTTP).
    pub kds_listen: SocketAddr,
    /// Product that is played.
    #[serde(default = "milan", deserialize_with = "product")]
    pub product: Product,
    /// Patch levels that reports state.
    #[serde(default)]
    pub tcb: Tcb,
}

/// Patch levels by component.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tcb {
    /// Turin only.
    #[serde(default)]
    pub fmc: u8,
    /// Boot loader.
    pub boot_loader: u8,
    /// Trusted execution environment.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl Default for Tcb {
    /// What a Milan machine with firmware of 2025 reports.
    fn default() -> Self {
        Self { fmc: 0, boot_loader: 4, tee: 0, snp: 24, microcode: 219 }
    }
}

/// Product and patch levels.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The patch levels.
    pub tcb: TcbVersion,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not of this form.
    #[error("{path} is not a valid configuration")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Line, key and reason.
        #[source]
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// The patch levels in the product's layout.
    pub fn identity(&self) -> Identity {
        let fmc = (self.product == Product::Turin).then_some(self.tcb.fmc);
        let Tcb { boot_loader, tee, snp, microcode, .. } = self.tcb;
        Identity { tcb: TcbVersion { fmc, boot_loader, tee, snp, microcode, reserved: [0; 4] } }
    }
}

fn milan() -> Product {
    Product::Milan
}

fn product<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Product, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map_err(serde::de::Error::custom)
}
