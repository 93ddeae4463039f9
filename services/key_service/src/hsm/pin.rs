//! The PIN of the token's user: read from a file that only its owner may read, wiped when it goes, without `Debug`.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

/// Longest file that is taken for one.
const LONGEST: u64 = 1024;

/// Why there is no PIN.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Others may read or write the file.
    #[error("the PIN file {file} has mode {mode:04o}; only its owner may read and write it (0600)")]
    Permissions {
        /// The file.
        file: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Empty, too long, or not UTF-8.
    #[error("the PIN file {0} does not hold a PIN: one line of UTF-8")]
    Malformed(PathBuf),
    /// The file cannot be read.
    #[error("could not read the PIN file {file}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A PIN in memory. It has no `Debug`, and is wiped when it goes.
pub struct Pin(AuthPin);

impl Pin {
    /// Reads a file of mode 0600; a line end behind the PIN does not belong to it.
    pub fn load(file: &Path) -> Result<Self, PinError> {
        let failed = |source| PinError::Io { file: file.to_owned(), source };
        let opened = File::open(file).map_err(failed)?;
        // Of the opened file, so that it cannot be another by now.
        let metadata: fs::Metadata = opened.metadata().map_err(failed)?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(PinError::Permissions { file: file.to_owned(), mode });
        }
        let malformed = || PinError::Malformed(file.to_owned());
        if metadata.len() > LONGEST {
            return Err(malformed());
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(LONGEST).unwrap_or_default()));
        opened.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() || text.contains(['\n', '\r', '\0']) {
            return Err(malformed());
        }
        Ok(Self(AuthPin::new(text.into())))
    }

    /// As the module takes it.
    pub fn secret(&self) -> &AuthPin {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn load(content: &[u8], mode: u32) -> Result<Pin, PinError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        Pin::load(file.path())
    }

    #[test]
    fn a_pin_is_one_line_in_a_file_of_its_owners() {
        for content in ["1234", "1234\n", "1234\r\n"] {
            assert!(load(content.as_bytes(), 0o600).is_ok());
        }
        for content in ["", "\n", "12\n34\n", "12\0", &"1".repeat(1025)] {
            assert!(matches!(load(content.as_bytes(), 0o600), Err(PinError::Malformed(_))), "{content:?}");
        }
        assert!(matches!(load(b"\xFF", 0o600), Err(PinError::Malformed(_))));
        for mode in [0o640, 0o604, 0o660] {
            assert!(matches!(load(b"1234", mode), Err(PinError::Permissions { .. })));
        }
        assert!(matches!(Pin::load(Path::new("/nowhere/pin")), Err(PinError::Io { .. })));
    }
}
