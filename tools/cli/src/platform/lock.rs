//! One platform to a data directory: a lock that dies with its holder.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::failure::Failure;

/// The held lock.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its lifetime only")] Flock<File>);

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("lock")
}

fn open(data_dir: &Path) -> Result<File> {
    let path = path(data_dir);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(&path).with_context(|| format!("opening {}", path.display()))
}

/// Takes the lock for this process, or says who holds it.
pub fn take(data_dir: &Path) -> Result<Lock> {
    match Flock::lock(open(data_dir)?, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())?;
            Ok(Lock(file))
        }
        Err((mut file, _)) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let message = format!("{} is in use by process {}", data_dir.display(), text.trim());
            Err(Failure::you(
                message,
                "`casemate status` shows the running platform, `casemate down` stops it",
            ))
        }
    }
}

/// Who holds the lock.
pub fn holder(data_dir: &Path) -> Result<Option<i32>> {
    if !path(data_dir).exists() {
        return Ok(None);
    }
    match Flock::lock(open(data_dir)?, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(None),
        Err((mut file, _)) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(Some(text.trim().parse().context("the lock file does not hold a process id")?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()).unwrap(), None);
        let lock = take(dir.path()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holder(dir.path()).unwrap(), Some(own));
        let error = take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {own}")), "{error}");
        drop(lock);
        assert_eq!(holder(dir.path()).unwrap(), None);
    }
}
