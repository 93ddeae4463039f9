//! The configuration file (TOML), whose form is [`ParavisorConfig`]; unknown keys are errors.

use std::io;
use std::path::{Path, PathBuf};

use internal_api::paravisor::ParavisorConfig;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not of the known form.
    #[error("the configuration {path} is not understood")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A path depends on where the process was started.
    #[error("the configuration's path {0} is not absolute")]
    Relative(PathBuf),
}

/// Reads and checks the file.
pub fn load(path: &Path) -> Result<ParavisorConfig, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let config: ParavisorConfig = toml::from_str(&text)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
    let relative = paths(&config).find(|path| !path.is_absolute()).cloned();
    match relative {
        Some(relative) => Err(ConfigError::Relative(relative)),
        None => Ok(config),
    }
}

fn paths(config: &ParavisorConfig) -> impl Iterator<Item = &PathBuf> {
    let always = [
        &config.image,
        &config.image_manifest,
        &config.disk,
        &config.guest_state,
        &config.boot_region,
        &config.vars,
        &config.vars_template,
        &config.launch_document,
        &config.provisioning_data,
        &config.trust_bundle,
        &config.release_token,
        &config.secure_processor,
        &config.tpm_socket,
        &config.disk_socket,
        &config.config_drive_socket,
        &config.control_socket,
    ];
    always.into_iter().chain(&config.guest_port_socket)
}
