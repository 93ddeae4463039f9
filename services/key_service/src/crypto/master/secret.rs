//! Secret texts: in a file, an environment variable or a credential.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::MasterKeyError;
use crate::config::Secret;

/// Where systemd puts credentials (systemd.exec(5), "Credentials").
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The text; nothing if there is none.
pub fn read(secret: &Secret) -> Result<Option<Zeroizing<Vec<u8>>>, MasterKeyError> {
    match secret {
        Secret::File(file) => {
            check_mode(file)?;
            contents(file)
        }
        Secret::Environment(name) => Ok(env::var_os(name).map(|value| Zeroizing::new(value.into_vec()))),
        // Its folder is the service's alone. Modes say nothing there: with an ACL the group's bits are its mask.
        Secret::Credential(name) => match env::var_os(CREDENTIALS) {
            Some(folder) => contents(&PathBuf::from(folder).join(name)),
            None => Ok(None),
        },
    }
}

/// A file's bytes; nothing if there is no file.
pub fn contents(file: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, MasterKeyError> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MasterKeyError::Io { file: file.to_owned(), source }),
    }
}

fn check_mode(file: &Path) -> Result<(), MasterKeyError> {
    let mode = match fs::metadata(file) {
        Ok(metadata) => metadata.mode() & 0o7777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(MasterKeyError::Io { file: file.to_owned(), source }),
    };
    if mode & 0o077 == 0 { Ok(()) } else { Err(MasterKeyError::Permissions { file: file.to_owned(), mode }) }
}

/// Writes a file that there was not, for its owner only; it is on the disk afterwards.
pub fn write(file: &Path, text: &[u8]) -> Result<(), MasterKeyError> {
    let failed = |source| MasterKeyError::Io { file: file.to_owned(), source };
    let mut output =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    output.write_all(text).and_then(|()| output.sync_all()).map_err(failed)?;
    match file.parent() {
        Some(folder) => File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed),
        None => Ok(()),
    }
}
