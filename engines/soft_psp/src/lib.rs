//! A software AMD secure processor for machines without one.
//!
//! What it is: the firmware's commands for launching guests, the guests' report and key requests, and the certificates
//! of the key distribution service, under a root of this installation's own. Digests, report bytes, certificate
//! chains and refusals follow AMD's documents. What it is not: a protection. Its keys lie in a file, and guest memory is
//! not encrypted. Nothing that trusts AMD's roots accepts what it signs, and it refuses to run beside a real one.
//!
//! ```text
//! LaunchStart -> LaunchUpdate ... -> LaunchFinish -> guest requests -> Decommission
//! ```
//!
//! A restart forgets all guests, as a reset of the silicon does.

pub mod authority;
mod certificates;
pub mod config;
mod der_write;
mod kds;
pub mod platform;
mod server;

use std::path::Path;
use std::sync::Arc;

pub use config::{Config, ConfigError};

use crate::authority::{Authority, AuthorityError};
use crate::platform::Platform;

/// Why the processor cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A real secure processor is here.
    #[error(
        "/dev/sev exists: this machine has a real secure processor, and a software one must not stand beside it"
    )]
    RealProcessor,
    /// Keys or certificates.
    #[error("preparing the root of trust")]
    Authority(#[from] AuthorityError),
    /// A socket or address.
    #[error("listening on {on}")]
    Listen {
        /// Socket or address.
        on: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// See [`RunError`].
pub fn run(config: &Config) -> Result<(), RunError> {
    if Path::new("/dev/sev").exists() {
        return Err(RunError::RealProcessor);
    }
    let authority = Arc::new(Authority::open(&config.state_dir, config.product, config.identity())?);
    tracing::warn!(root = %hex::encode(authority.root_id()), "development root: this processor protects nothing");
    let platform = Arc::new(Platform::new(Arc::clone(&authority), config));
    server::listen(config, &platform)?;
    kds::serve(config, authority)
}
