//! `casemate-keys master-key`: puts the master key where another configuration wants it, so that it moves from a file to a
//! TPM, from one passphrase to another, or to a copy that is kept elsewhere. The key stays the same, and what it sealed
//! stays as it is.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::CommandError;
use crate::config::{Config, MasterKeyConfig};
use crate::crypto::master;
use crate::crypto::seal::MasterKey;

/// Where the key is, and where it shall be.
#[derive(Debug, clap::Args)]
pub struct MasterKeyArguments {
    /// The configuration file (TOML) whose master key it is.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The configuration file (TOML) whose `[master_key]` says where to put it; nothing may be there yet.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl MasterKeyArguments {
    /// Copies the key, reads it back, and tells its id.
    pub fn run(self) -> Result<Value, CommandError> {
        let (from, to) = (Config::load(&self.from)?.master_key, Config::load(&self.to)?.master_key);
        let there = MasterKeyConfig { create: false, ..from.clone() };
        let id = MasterKey::load(&there, None)?.id().as_str().to_owned();
        master::store(&to.source, &master::obtain(&from, Some(&id))?)?;
        MasterKey::load(&to, Some(&id))?;
        Ok(json!({"masterKeyId": id, "from": from.source.to_string(), "to": to.source.to_string()}))
    }
}
