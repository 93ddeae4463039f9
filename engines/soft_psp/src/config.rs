//! The configuration: one TOML file, unknown keys refused, paths absolute.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use snp::{Product, TcbVersion};

/// Bytes of a Unix socket's path, the zero at its end left out.
const MAX_SOCKET_PATH: usize = 107;

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
    /// The chip's id in hex, as many bytes as the product has; derived from the seed when it is not given.
    #[serde(default)]
    pub chip_id: Option<String>,
    /// Patch levels that reports state.
    #[serde(default)]
    pub tcb: Tcb,
    /// Version of the reports: 2, 3, 4 or 5.
    #[serde(default = "version_3")]
    pub report_version: u32,
    /// Reports do not name the chip (SNP_CONFIG, MASK_CHIP_ID).
    #[serde(default)]
    pub mask_chip_id: bool,
    /// A provider's key is loaded; it signs where a guest asks for no key in particular.
    #[serde(default)]
    pub vlek: Option<Vlek>,
}

/// A versioned loaded endorsement key (SNP_VLEK_LOAD).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vlek {
    /// The provider's name in the certificate.
    pub csp_id: String,
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

/// What reports and certificates say about the platform.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The product.
    pub product: Product,
    /// The patch levels.
    pub tcb: TcbVersion,
    /// The chip's id, when it is given.
    pub chip_id: Option<Vec<u8>>,
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
    /// A value that cannot be.
    #[error("{path}: {key} {problem}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
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
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        match config.problem() {
            None => Ok(config),
            Some((key, problem)) => Err(ConfigError::Value { path: path.to_owned(), key, problem }),
        }
    }

    fn problem(&self) -> Option<(&'static str, String)> {
        let paths = [
            ("state_dir", &self.state_dir),
            ("runtime_dir", &self.runtime_dir),
            ("host_socket", &self.host_socket),
        ];
        if let Some((key, path)) = paths.into_iter().find(|(_, path)| !path.is_absolute()) {
            return Some((key, format!("is not an absolute path: {}", path.display())));
        }
        let guest = self.runtime_dir.join(format!("guest-{}.sock", u64::MAX));
        for (key, socket) in [("runtime_dir", &guest), ("host_socket", &self.host_socket)] {
            if socket.as_os_str().len() > MAX_SOCKET_PATH {
                return Some((key, format!("is too long for a socket: {}", socket.display())));
            }
        }
        if !self.kds_listen.ip().is_loopback() {
            return Some(("kds_listen", format!("is not a loopback address: {}", self.kds_listen)));
        }
        if !(2..=5).contains(&self.report_version) {
            return Some(("report_version", format!("is {}, and not 2, 3, 4 or 5", self.report_version)));
        }
        if self.vlek.as_ref().is_some_and(|vlek| vlek.csp_id.is_empty() || !vlek.csp_id.is_ascii()) {
            return Some(("vlek.csp_id", "is not a name in ASCII".to_owned()));
        }
        let len = self.product.chip_id_len();
        let bad_chip = self.chip_id.is_some() && self.chip_bytes().is_none_or(|id| id.len() != len);
        bad_chip.then(|| ("chip_id", format!("is not {len} bytes of hex")))
    }

    fn chip_bytes(&self) -> Option<Vec<u8>> {
        self.chip_id.as_ref().and_then(|text| hex::decode(text).ok())
    }

    /// The platform, the patch levels in the product's layout.
    pub fn identity(&self) -> Identity {
        let fmc = (self.product == Product::Turin).then_some(self.tcb.fmc);
        let Tcb { boot_loader, tee, snp, microcode, .. } = self.tcb;
        let tcb = TcbVersion { fmc, boot_loader, tee, snp, microcode, reserved: [0; 4] };
        Identity { product: self.product, tcb, chip_id: self.chip_bytes() }
    }
}

fn milan() -> Product {
    Product::Milan
}

fn version_3() -> u32 {
    3
}

fn product<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Product, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map_err(serde::de::Error::custom)
}
