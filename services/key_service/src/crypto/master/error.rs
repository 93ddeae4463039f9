//! What can be wrong with a master key.

use std::io;
use std::path::PathBuf;

use vtpm::command::CommandError;

/// What can be wrong with a master key. `place` is where the configuration says that it is.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// There is none, and the configuration does not ask to make one.
    #[error("there is no master key at {place}; set `master_key.create = true` to make one")]
    Missing {
        /// Where.
        place: String,
    },
    /// There is a database but no master key for it.
    #[error(
        "there is no master key at {place}, but the database was sealed under master key {id}; restore that file"
    )]
    Lost {
        /// Where it should be.
        place: String,
        /// Its id.
        id: String,
    },
    /// Another key is there.
    #[error("{place} holds master key {found}, but the database was sealed under master key {expected}")]
    Wrong {
        /// Where.
        place: String,
        /// Id in the database.
        expected: String,
        /// Id of the key that is there.
        found: String,
    },
    /// Others may read or write the file.
    #[error(
        "{file} has mode {mode:04o}; only its owner may read and write a master key or a passphrase (0600)"
    )]
    Permissions {
        /// The file.
        file: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not 64 hexadecimal characters, or not what this program wrote.
    #[error("the master key at {place} is not 64 hexadecimal characters, or not what this program wraps")]
    Malformed {
        /// Where.
        place: String,
    },
    /// No secret at that place.
    #[error("there is no passphrase at {place}")]
    NoPassphrase {
        /// Where.
        place: String,
    },
    /// Too easy to guess.
    #[error("the passphrase at {place} has {length} characters; it must have {least} at least")]
    ShortPassphrase {
        /// Where.
        place: String,
        /// How many it has.
        length: usize,
        /// How many it needs.
        least: usize,
    },
    /// The passphrase does not open the file.
    #[error("the passphrase does not open {file}: it is another one, or the file was changed")]
    Passphrase {
        /// The file.
        file: PathBuf,
    },
    /// The environment and credentials are read only.
    #[error("{place} is read only: a new master key cannot be put there")]
    NotWritable {
        /// Where.
        place: String,
    },
    /// The file cannot be read or written.
    #[error("could not use {file}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The TPM does not answer.
    #[error("could not talk to the TPM {device}")]
    TpmIo {
        /// The device.
        device: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The TPM refused a command.
    #[error("the TPM {device} refused: {doing}")]
    Tpm {
        /// The device.
        device: PathBuf,
        /// What was asked.
        doing: &'static str,
        /// The answer.
        #[source]
        source: CommandError,
    },
    /// The machine is in another state than when the key was sealed.
    #[error(
        "the TPM {device} does not open {file}: PCRs {pcrs} have other values than when the master key was sealed \
         (firmware, its settings or the boot loader changed); put the key there anew from a copy \
         (`casemate-keys master-key`), or restore that state"
    )]
    OtherState {
        /// The device.
        device: PathBuf,
        /// The file.
        file: PathBuf,
        /// The PCRs.
        pcrs: String,
    },
    /// Another TPM, or a changed file.
    #[error("the TPM {device} does not open {file}: it was sealed to another TPM, or was changed")]
    OtherTpm {
        /// The device.
        device: PathBuf,
        /// The file.
        file: PathBuf,
    },
}
