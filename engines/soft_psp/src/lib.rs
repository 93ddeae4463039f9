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

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
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
    /// Another process uses the state directory.
    #[error("{0} is in use by another software secure processor")]
    InUse(PathBuf),
    /// The lock of the state directory.
    #[error("locking {path}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
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
    refuse_real_processor(Path::new("/dev/sev"))?;
    let _lock = lock(&config.state_dir)?;
    let mut authority = Authority::open(&config.state_dir, &config.identity())?;
    if let Some(vlek) = &config.vlek {
        authority.load_vlek(&config.state_dir, &vlek.csp_id)?;
    }
    let authority = Arc::new(authority);
    tracing::warn!(root = %hex::encode(authority.root_id()), "development root: this processor protects nothing");
    let platform = Arc::new(Platform::new(Arc::clone(&authority), config));
    server::listen(config, &platform)?;
    kds::serve(config, authority)
}

/// A machine with a real secure processor gets no software one beside it.
fn refuse_real_processor(device: &Path) -> Result<(), RunError> {
    if device.exists() { Err(RunError::RealProcessor) } else { Ok(()) }
}

/// One processor a state directory; the lock goes with the process.
fn lock(state_dir: &Path) -> Result<File, RunError> {
    let path = state_dir.join("lock");
    let on = |source| RunError::Lock { path: path.clone(), source };
    std::fs::create_dir_all(state_dir).map_err(on)?;
    let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(on)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunError::InUse(state_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(RunError::Lock { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_a_real_secure_processor_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("sev");
        refuse_real_processor(&device).unwrap();
        std::fs::write(&device, []).unwrap();
        assert!(matches!(refuse_real_processor(&device), Err(RunError::RealProcessor)));
    }

    #[test]
    fn a_state_directory_has_one_processor() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(RunError::InUse(_))));
        drop(held);
        lock(dir.path()).unwrap();
    }
}
