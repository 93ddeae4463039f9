//! The host agent's configuration: one TOML file, unknown keys refused, paths absolute.

use std::path::{Path, PathBuf};

use internal_api::host::Platform;
use serde::Deserialize;
use snp::{Product, UnknownProduct};
use url::Url;

/// Longest path that fits into a Unix socket address, without its final NUL.
const SOCKET_PATH_MAX: usize = 107;
/// `/<VM id>/<longest socket name>`.
const SOCKET_SUFFIX: usize = 1 + 36 + 1 + "config-drive.sock".len();

/// Everything that the operator sets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Base URL of the control plane's host interface (mutual TLS).
    pub control_plane_url: Url,
    /// PEM bundle under which the control plane's certificate verifies.
    pub tls_ca: PathBuf,
    /// PEM chain of this host's client certificate.
    pub tls_certificate: PathBuf,
    /// PKCS#8 PEM key of the client certificate.
    pub tls_key: PathBuf,
    /// Host name, as the client certificate says.
    pub name: String,
    /// Region that the host belongs to.
    pub region: String,
    /// Virtual cores that may be given out.
    pub vcpus: u32,
    /// Memory that may be given out.
    pub memory_mib: u64,
    /// Secure processor behind the host's reports.
    #[serde(default = "development")]
    pub platform: Platform,
    /// VM disks, states, logs: `vms/<VM id>/`.
    pub data_dir: PathBuf,
    /// Sockets: `<VM id>/`. Must be short: a socket's address holds 107 bytes.
    pub runtime_dir: PathBuf,
    /// Images: `<manifest digest>/{disk.raw,manifest}`.
    pub image_dir: PathBuf,
    /// Firmware code (`OVMF_CODE_4M.secboot.fd`), measured and run.
    pub firmware_code: PathBuf,
    /// Firmware variables as shipped (`OVMF_VARS_4M.ms.fd`); named by the launch page.
    pub firmware_vars: PathBuf,
    /// The paravisor program; named by the launch page.
    pub paravisor: PathBuf,
    /// Host socket of the secure processor.
    pub secure_processor: PathBuf,
    /// Base URL of the key distribution service for the chip's certificates.
    pub kds_url: Url,
    /// QEMU, by name or path.
    #[serde(default = "qemu")]
    pub qemu: PathBuf,
    /// How guest code is run.
    #[serde(default)]
    pub accelerator: AcceleratorChoice,
    /// CPU model whose signature the VMSAs are measured with.
    #[serde(default = "cpu_model")]
    pub cpu_model: String,
    /// Product line of the secure processor (Milan, Genoa, Turin); this machine's own if it is not given.
    #[serde(default)]
    pub product: Option<String>,
    /// First and last loopback port for the guests' SSH.
    #[serde(default = "ssh_ports")]
    pub ssh_ports: [u16; 2],
    /// Whether guests may open connections to the outside.
    #[serde(default = "yes")]
    pub outbound: bool,
    /// How long a guest may take to power off before it is switched off.
    #[serde(default = "shutdown_seconds")]
    pub shutdown_seconds: u64,
}

/// What the operator wants of the accelerator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceleratorChoice {
    /// KVM when it is seen to run firmware, else TCG.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Always TCG.
    Tcg,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// Not TOML, an unknown key, or a missing one.
    #[error("the configuration {0} is malformed")]
    Parse(PathBuf, #[source] Box<toml::de::Error>),
    /// A path that is relative.
    #[error("{0} must be an absolute path, it is {1}")]
    Relative(&'static str, PathBuf),
    /// A runtime directory whose sockets would have no address.
    #[error("runtime_dir is too long for Unix sockets: {0} has {1} bytes, {2} are allowed")]
    RuntimeDir(PathBuf, usize, usize),
    /// A product that there is not.
    #[error("configuration key `product`")]
    Product(#[from] UnknownProduct),
    /// A port range that holds no port.
    #[error("ssh_ports must be [first, last] with first <= last, not [{0}, {1}]")]
    Ports(u16, u16),
}

impl Config {
    /// Reads and checks `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read(path.to_owned(), e))?;
        let config: Self =
            toml::from_str(&text).map_err(|e| ConfigError::Parse(path.to_owned(), Box::new(e)))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let paths = [
            ("tls_ca", &self.tls_ca),
            ("tls_certificate", &self.tls_certificate),
            ("tls_key", &self.tls_key),
            ("data_dir", &self.data_dir),
            ("runtime_dir", &self.runtime_dir),
            ("image_dir", &self.image_dir),
            ("firmware_code", &self.firmware_code),
            ("firmware_vars", &self.firmware_vars),
            ("paravisor", &self.paravisor),
            ("secure_processor", &self.secure_processor),
        ];
        if let Some((key, path)) = paths.into_iter().find(|(_, path)| !path.is_absolute()) {
            return Err(ConfigError::Relative(key, path.clone()));
        }
        let length = self.runtime_dir.as_os_str().len();
        if length + SOCKET_SUFFIX > SOCKET_PATH_MAX {
            let allowed = SOCKET_PATH_MAX - SOCKET_SUFFIX;
            return Err(ConfigError::RuntimeDir(self.runtime_dir.clone(), length, allowed));
        }
        self.product()?;
        let [first, last] = self.ssh_ports;
        if first > last {
            return Err(ConfigError::Ports(first, last));
        }
        Ok(())
    }
}

impl Config {
    /// The product line, where it is given.
    pub fn product(&self) -> Result<Option<Product>, UnknownProduct> {
        self.product.as_deref().map(str::parse).transpose()
    }
}

fn development() -> Platform {
    Platform::Development
}

fn qemu() -> PathBuf {
    "qemu-system-x86_64".into()
}

fn cpu_model() -> String {
    "EPYC-Milan".to_owned()
}

fn ssh_ports() -> [u16; 2] {
    [22200, 22399]
}

fn yes() -> bool {
    true
}

fn shutdown_seconds() -> u64 {
    90
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A valid configuration below `root`.
    pub(crate) fn text(root: &str) -> String {
        format!(
            r#"control_plane_url = "https://127.0.0.1:8444"
tls_ca = "{root}/ca.pem"
tls_certificate = "{root}/host.pem"
tls_key = "{root}/host.key"
name = "host-1"
region = "local"
vcpus = 4
memory_mib = 8192
data_dir = "{root}/data"
runtime_dir = "{root}/run"
image_dir = "{root}/images"
firmware_code = "{root}/code.fd"
firmware_vars = "{root}/vars.fd"
paravisor = "{root}/paravisor"
secure_processor = "{root}/psp.sock"
kds_url = "http://127.0.0.1:8080"
"#
        )
    }

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
        config.check().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn defaults_are_filled_in() {
        let config = parse(&text("/r")).expect("valid");
        assert_eq!(config.accelerator, AcceleratorChoice::Auto);
        assert_eq!(config.ssh_ports, [22200, 22399]);
        assert!(config.outbound);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = parse(&format!("{}acelerator = \"kvm\"\n", text("/r"))).expect_err("unknown key");
        assert!(error.contains("acelerator"), "{error}");
    }

    #[test]
    fn a_relative_path_is_refused_by_name() {
        let error = parse(&text("/r").replace("/r/vars.fd", "vars.fd")).expect_err("relative");
        assert!(error.starts_with("firmware_vars must be an absolute path"), "{error}");
    }

    #[test]
    fn a_runtime_dir_without_room_for_socket_names_is_refused() {
        let long = format!("/{}", "x".repeat(60));
        let error = parse(&text("/r").replace("/r/run", &long)).expect_err("too long");
        assert!(error.contains("too long for Unix sockets"), "{error}");
    }

    #[test]
    fn a_product_that_there_is_not_is_refused() {
        let error = parse(&format!("{}product = \"Rome\"\n", text("/r"))).expect_err("no such product");
        assert_eq!(error, "configuration key `product`");
        assert!(parse(&format!("{}product = \"Genoa\"\n", text("/r"))).is_ok());
    }

    #[test]
    fn an_empty_port_range_is_refused() {
        let error = parse(&format!("{}ssh_ports = [2, 1]\n", text("/r"))).expect_err("empty range");
        assert!(error.contains("[2, 1]"), "{error}");
    }
}
