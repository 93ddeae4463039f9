//! Files that only this service may read: made once, mode 0600, complete or absent.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// Reads a secret; `None` if the file is not there.
pub fn read(path: &Path) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut secret = Zeroizing::new(Vec::with_capacity(8192));
    file.read_to_end(&mut secret)?;
    Ok(Some(secret))
}

/// Writes a secret that is not there yet. A crash leaves either the whole file or none.
pub fn write_new(path: &Path, secret: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(secret)?;
    file.sync_all()?;
    // A link, unlike a rename, never replaces a file that another process has written in the meantime.
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    linked?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes a private file in the place of a former one. A crash leaves either of the two, whole.
pub fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_private_and_never_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        assert!(read(&path).expect("readable").is_none());
        write_new(&path, b"one").expect("written");
        assert_eq!(write_new(&path, b"two").expect_err("exists").kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path).expect("readable").expect("there").as_slice(), b"one");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 1);
    }
}
