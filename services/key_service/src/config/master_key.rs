//! `[master_key]`: where the key comes from that seals all others.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// Fewer characters than this are guessed, whatever the key derivation costs.
pub const SHORTEST_PASSPHRASE: usize = 12;

/// `[master_key]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Table")]
pub struct MasterKeyConfig {
    /// Where it is.
    pub source: MasterKeySource,
    /// Make it if there is neither a key nor a database.
    pub create: bool,
}

/// Where the master key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterKeySource {
    /// As it is: 64 hexadecimal characters.
    Plain(Secret),
    /// Wrapped under a passphrase, in a file.
    Passphrase {
        /// The file.
        wrapped: PathBuf,
        /// Where the passphrase is.
        passphrase: Secret,
    },
    /// Sealed to this machine's TPM, in a file.
    Tpm {
        /// The file.
        sealed: PathBuf,
        /// `/dev/tpmrm0`, or a socket that takes TPM commands.
        device: PathBuf,
        /// It opens only while these PCRs of the SHA-256 bank have the values that they had when it was sealed.
        pcrs: Vec<u8>,
    },
}

/// Where a secret text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A file of mode 0600.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A credential that systemd hands to the service (systemd.exec(5), `LoadCredential=`).
    Credential(String),
}

/// The table as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    file: Option<PathBuf>,
    environment: Option<String>,
    credential: Option<String>,
    passphrase_file: Option<PathBuf>,
    passphrase_environment: Option<String>,
    passphrase_credential: Option<String>,
    tpm: Option<PathBuf>,
    wrapped_file: Option<PathBuf>,
    pcrs: Option<Vec<u8>>,
    #[serde(default)]
    create: bool,
}

impl TryFrom<Table> for MasterKeyConfig {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        let create = table.create;
        let source = source(table)?;
        match &source {
            MasterKeySource::Plain(Secret::Environment(_) | Secret::Credential(_)) if create => {
                Err("`create` needs a place to put the key: a file, a passphrase or a TPM")
            }
            _ => Ok(Self { source, create }),
        }
    }
}

fn source(table: Table) -> Result<MasterKeySource, &'static str> {
    let Table { tpm, wrapped_file, pcrs, .. } = table;
    let plain = secrets(table.file, table.environment, table.credential);
    let passphrase =
        secrets(table.passphrase_file, table.passphrase_environment, table.passphrase_credential);
    if pcrs.is_some() && tpm.is_none() {
        return Err("`pcrs` belongs to `tpm`");
    }
    let source = match (one(plain)?, one(passphrase)?, tpm) {
        (Some(secret), None, None) if wrapped_file.is_none() => return Ok(MasterKeySource::Plain(secret)),
        (Some(_), None, None) => return Err("`wrapped_file` belongs to a passphrase or a TPM"),
        (None, Some(passphrase), None) => {
            MasterKeySource::Passphrase { wrapped: wrapped(wrapped_file)?, passphrase }
        }
        (None, None, Some(device)) if device.is_absolute() => {
            MasterKeySource::Tpm { sealed: wrapped(wrapped_file)?, device, pcrs: checked(pcrs)? }
        }
        (None, None, Some(_)) => return Err("`tpm` must be an absolute path"),
        _ => return Err(ONE),
    };
    Ok(source)
}

const ONE: &str = "give exactly one of `file`, `environment`, `credential`, `passphrase_file`, \
                   `passphrase_environment`, `passphrase_credential` and `tpm`";

fn secrets(
    file: Option<PathBuf>,
    environment: Option<String>,
    credential: Option<String>,
) -> [Option<Secret>; 3] {
    [file.map(Secret::File), environment.map(Secret::Environment), credential.map(Secret::Credential)]
}

fn one(secrets: [Option<Secret>; 3]) -> Result<Option<Secret>, &'static str> {
    let mut given = secrets.into_iter().flatten();
    let first = given.next();
    if given.next().is_some() {
        return Err(ONE);
    }
    first.map(Secret::checked).transpose()
}

fn wrapped(file: Option<PathBuf>) -> Result<PathBuf, &'static str> {
    let file = file.ok_or("`wrapped_file` says where the wrapped master key lies")?;
    if file.is_absolute() { Ok(file) } else { Err("`wrapped_file` must be an absolute path") }
}

/// The PCRs of a PC client's static and dynamic roots: 0 to 23.
fn checked(pcrs: Option<Vec<u8>>) -> Result<Vec<u8>, &'static str> {
    let mut pcrs = pcrs.unwrap_or_default();
    pcrs.sort_unstable();
    pcrs.dedup();
    if pcrs.iter().all(|pcr| *pcr < 24) { Ok(pcrs) } else { Err("`pcrs` are numbers from 0 to 23") }
}

impl Secret {
    /// A credential's name is a file's name, and nothing more.
    fn checked(self) -> Result<Self, &'static str> {
        match &self {
            Secret::File(path) if !path.is_absolute() => Err("the path of a secret must be absolute"),
            Secret::Credential(name) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                Err("the name of a credential has no slash, and no dot at its start")
            }
            Secret::Environment(name) if name.is_empty() || name.contains('=') => {
                Err("this is no name of an environment variable")
            }
            _ => Ok(self),
        }
    }
}

impl fmt::Display for MasterKeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MasterKeySource::Plain(secret) => secret.fmt(f),
            MasterKeySource::Passphrase { wrapped, .. } => {
                write!(f, "{}, under a passphrase", wrapped.display())
            }
            MasterKeySource::Tpm { sealed, device, .. } => {
                write!(f, "{}, sealed to the TPM {}", sealed.display(), device.display())
            }
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::File(file) => file.display().fmt(f),
            Secret::Environment(name) => write!(f, "the environment variable {name}"),
            Secret::Credential(name) => write!(f, "the credential {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<MasterKeyConfig, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn each_source_is_read() {
        let file = |path: &str| Secret::File(path.into());
        let cases = [
            ("file = '/k'", MasterKeySource::Plain(file("/k"))),
            ("environment = 'KEY'", MasterKeySource::Plain(Secret::Environment("KEY".into()))),
            ("credential = 'key'", MasterKeySource::Plain(Secret::Credential("key".into()))),
            (
                "passphrase_file = '/p'\nwrapped_file = '/w'",
                MasterKeySource::Passphrase { wrapped: "/w".into(), passphrase: file("/p") },
            ),
            (
                "tpm = '/dev/tpmrm0'\nwrapped_file = '/w'\npcrs = [7, 0, 7]",
                MasterKeySource::Tpm { sealed: "/w".into(), device: "/dev/tpmrm0".into(), pcrs: vec![0, 7] },
            ),
        ];
        for (text, source) in cases {
            assert_eq!(read(text), Ok(MasterKeyConfig { source, create: false }), "{text}");
        }
        assert!(read("file = '/k'\ncreate = true").is_ok_and(|config| config.create));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let cases = [
            ("create = true", "give exactly one"),
            ("file = '/k'\nenvironment = 'K'", "give exactly one"),
            ("file = '/k'\ntpm = '/t'", "give exactly one"),
            ("passphrase_file = '/p'\ntpm = '/t'\nwrapped_file = '/w'", "give exactly one"),
            ("passphrase_file = '/p'", "`wrapped_file` says where"),
            ("tpm = '/t'", "`wrapped_file` says where"),
            ("tpm = 't'\nwrapped_file = '/w'", "`tpm` must be an absolute path"),
            ("tpm = '/t'\nwrapped_file = 'w'", "`wrapped_file` must be"),
            ("tpm = '/t'\nwrapped_file = '/w'\npcrs = [24]", "`pcrs` are numbers"),
            ("file = '/k'\npcrs = [7]", "`pcrs` belongs to `tpm`"),
            ("file = '/k'\nwrapped_file = '/w'", "`wrapped_file` belongs"),
            ("file = 'k'", "the path of a secret"),
            ("credential = '../key'", "the name of a credential"),
            ("credential = ''", "the name of a credential"),
            ("environment = 'A=B'", "this is no name"),
            ("environment = 'K'\ncreate = true", "`create` needs a place"),
            ("file = '/k'\nmode = 1", "unknown field `mode`"),
        ];
        for (text, expected) in cases {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
