//! What `casemate-keys` does beside serving: copying the database while a service writes to it, proving that a database
//! is whole, and moving the master key. None changes a database, takes the service's lock, or needs the service to run.
//! And moving a vault from one database to another, and into a token, while no service runs on either.

mod backup;
mod check;
mod master_key;
mod move_call_off;
mod move_copy;
mod move_marks;
mod move_seal;
mod move_token;
mod move_vault;
mod move_verify;
mod refusals;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;
use token_verifier::Refusal;

use crate::app::StartError;
use crate::config::ConfigError;
use crate::crypto::master::MasterKeyError;
use crate::hsm::HsmError;
use crate::store::StoreError;

pub use backup::BackupArguments;
pub use check::CheckArguments;
pub use master_key::MasterKeyArguments;
pub use move_vault::MoveArguments;

/// A command that ends by itself.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy the database to a new file while the service runs; say what was copied, as JSON.
    Backup(BackupArguments),
    /// Prove that the decision log is whole and that every stored key opens; say what was seen, as JSON.
    Check(CheckArguments),
    /// Put the master key where another configuration wants it; say its id, as JSON.
    MasterKey(MasterKeyArguments),
    /// Move the whole vault to another, empty database: from SQLite to PostgreSQL, or back, and into a token; say what was
    /// moved, as JSON.
    Move(Box<MoveArguments>),
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration.
    #[error("the configuration is not usable")]
    Config(#[from] ConfigError),
    /// A rule said no; the five parts.
    #[error("{0}")]
    Refused(Refusal),
    /// The database cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The master key.
    #[error("the master key is not usable")]
    MasterKey(#[from] MasterKeyError),
    /// The data folder, or the service that has it.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The hardware security module.
    #[error("the hardware security module is not usable")]
    Hsm(#[from] HsmError),
    /// A file cannot be made, read or brought to disk.
    #[error("could not use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Command {
    /// Runs to the end. What was seen goes to standard output, a failure to the log.
    pub async fn run(self) -> ExitCode {
        let done = match self {
            Self::Backup(arguments) => arguments.run().await,
            Self::Check(arguments) => arguments.run().await,
            Self::MasterKey(arguments) => arguments.run(),
            Self::Move(arguments) => arguments.run().await,
        };
        match done {
            Ok(seen) => tell(&seen),
            Err(error) => {
                tracing::error!("{}", crate::chain(&error));
                ExitCode::FAILURE
            }
        }
    }
}

#[allow(clippy::print_stdout, reason = "a command's result goes to standard output")]
fn tell(seen: &Value) -> ExitCode {
    println!("{seen:#}");
    ExitCode::SUCCESS
}
