//! `casemate-attestation sign-minimum-tcb`: a tenant or operator signs a table of minimum patch levels. It is checked as
//! the service checks it, so that nothing is signed that would be refused. The result goes to standard output.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use public_api::Denial;
use public_api::collateral::MinimumTcbTable;

use crate::app::minimum_tcb::check_form;
use crate::app::signed_document::sign;
use crate::config::{ConfigError, read};

/// Arguments of `sign-minimum-tcb`.
#[derive(Clone, Debug, clap::Args)]
pub struct SignMinimumTcb {
    /// The table (JSON): document, sequence, issuedOn, products.
    #[arg(long)]
    pub table: PathBuf,
    /// The private key: PEM (PKCS #8), P-384, P-256 or RSA.
    #[arg(long)]
    pub key: PathBuf,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error(transparent)]
    File(#[from] ConfigError),
    #[error("reading the table")]
    Table(#[from] serde_json::Error),
    #[error("the table is refused: {0}")]
    Refused(Box<Denial>),
    #[error("the key is no P-384, P-256 or RSA key in PKCS #8")]
    Key,
}

impl SignMinimumTcb {
    /// Runs the command: exit status 0, or 2 for input that cannot be read.
    pub fn run(&self) -> ExitCode {
        match sign_table(&self.table, &self.key) {
            Ok(jws) => {
                #[allow(clippy::print_stdout, reason = "this command's result goes to standard output")]
                {
                    println!("{jws}");
                }
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!("{}", crate::chain(&error));
                ExitCode::from(2)
            }
        }
    }
}

fn sign_table(table: &Path, key: &Path) -> Result<String, SignError> {
    let table: MinimumTcbTable = serde_json::from_slice(&read(table)?)?;
    check_form(&table).map_err(SignError::Refused)?;
    let key = zeroize::Zeroizing::new(read(key)?);
    sign(&table, &key).ok_or(SignError::Key)
}
