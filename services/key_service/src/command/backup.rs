//! `casemate-keys backup`: a copy of the database that another service can start on.
//!
//! The copy holds every key sealed, as the database does: without the master key, which is not in it, it opens nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::{CommandError, refusals};
use crate::config::Config;
use crate::store::snapshot::Snapshot;
use crate::store::{self, Place, StoreError, decisions};

/// What to copy, and where to.
#[derive(Debug, clap::Args)]
pub struct BackupArguments {
    /// The service's configuration file (TOML).
    #[arg(long)]
    config: PathBuf,
    /// The new file; it must not exist. Only its owner can read it (0600).
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl BackupArguments {
    /// Copies, brings the copy to disk, and tells what is in it. A copy that failed is removed.
    pub async fn run(self) -> Result<Value, CommandError> {
        let database = match Config::load(&self.config)?.place()? {
            Place::Sqlite(database) => database,
            Place::Postgres(server) => return Err(refusals::backup_of_server(&server.to_string())),
        };
        let target = std::path::absolute(&self.to).map_err(|source| failed(&self.to, source))?;
        let file = reserve(&target)?;
        let copied = copy(&database, &file, &target).await;
        if copied.is_err() {
            // What is left would be taken for a backup.
            let _ = std::fs::remove_file(&target);
        }
        copied
    }
}

fn failed(path: &Path, source: io::Error) -> CommandError {
    CommandError::File { path: path.to_owned(), source }
}

/// Makes the file, so that nobody else can have made it and nobody else can read it.
fn reserve(target: &Path) -> Result<File, CommandError> {
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(target);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => refusals::target_exists(target),
        _ => failed(target, error),
    })
}

async fn copy(database: &Path, file: &File, target: &Path) -> Result<Value, CommandError> {
    let name = target.to_str().ok_or_else(|| {
        failed(target, io::Error::new(io::ErrorKind::InvalidFilename, "the name is not UTF-8"))
    })?;
    store::copy::copy(database, name).await?;
    file.sync_all().map_err(|source| failed(target, source))?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| failed(folder, source))?;
    let (bytes, sha256) = hashed(file).map_err(|source| failed(target, source))?;
    let (keys, log) = contents(target).await?;
    Ok(json!({"to": name, "bytes": bytes, "sha256": sha256, "keys": keys, "log": log}))
}

/// Length and SHA-256 of the file's content.
fn hashed(mut file: &File) -> io::Result<(usize, String)> {
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut chunk, mut length) = (vec![0; 1 << 16], 0);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((length, hex::encode(context.finish()))),
            read => {
                context.update(&chunk[..read]);
                length += read;
            }
        }
    }
}

/// What is in a copy: the numbers of keys, and where its decision log ends.
async fn contents(copy: &Path) -> Result<(Value, Value), StoreError> {
    let mut snapshot = Snapshot::open(&Place::Sqlite(copy.to_owned())).await?;
    let numbers = snapshot.numbers().await?;
    let newest = decisions::newest(&mut snapshot.connection).await?;
    snapshot.close().await;
    let keys = json!({"live": numbers.live, "deleted": numbers.deleted, "versions": numbers.versions});
    let place = newest.map(|entry| entry.place());
    let entries = place.as_ref().map_or(0, |place| place.sequence);
    Ok((keys, json!({"entries": entries, "lastHash": place.map(|place| place.hash)})))
}
