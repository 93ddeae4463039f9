//! `casemate attestation reference-values`: the launches that are accepted, as a signed document.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use public_api::client::Connection;
use public_api::collateral::{ReferenceDocument, ReferencesImported};
use reqwest::Method;

use super::{OfProvider, payload, read_text, time, write_or_print};
use crate::printer::Printer;
use crate::profile::Profile;

/// What to do with reference values.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The accepted launches.
    List(OfProvider),
    /// The document, signed by the provider's key (JWS).
    Export {
        #[command(flatten)]
        of: OfProvider,
        /// Where to write it; standard output if not given.
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Accept the launches of another service whose key is pinned in the configuration.
    Import {
        /// The exported document.
        file: PathBuf,
    },
}

/// Runs the command.
pub async fn run(command: Command, profile: &Profile, printer: &Printer) -> Result<()> {
    let service = profile.attestation_client().await?.0;
    match command {
        Command::List(of) => list(&exported(&of, &service).await?, printer),
        Command::Export { of, file } => {
            write_or_print(file.as_deref(), &exported(&of, &service).await?, printer)
        }
        Command::Import { file } => {
            let text = read_text(&file)?;
            let imported: ReferencesImported =
                service.exchange(Method::PUT, "/referenceValues", text.trim()).await?;
            let facts = [
                ("issuer", imported.issuer.clone()),
                ("values", imported.values.to_string()),
                ("until", imported.until.clone()),
            ];
            printer.facts(&serde_json::to_value(&imported)?, &facts);
            Ok(())
        }
    }
}

async fn exported(of: &OfProvider, service: &Connection) -> Result<String> {
    Ok(service.text(&of.path("/referenceValues")).await?)
}

fn list(jws: &str, printer: &Printer) -> Result<()> {
    let value = payload(jws)?;
    let document: ReferenceDocument =
        serde_json::from_value(value.clone()).context("reading the reference values")?;
    let row = |one: &public_api::collateral::ReferenceValue| {
        let (cpu, vcpus) = match &one.inputs {
            Some(inputs) => (inputs.cpu_model.clone(), inputs.vcpus.to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let until = one.until.clone().unwrap_or_else(|| "-".to_owned());
        vec![one.name.clone(), cpu, vcpus, until, one.launch_measurement.clone()]
    };
    let rows = document.values.iter().map(row).collect();
    printer.result(&value, &["name", "cpu", "vcpus", "until", "launch digest"], rows);
    printer.note(&format!("of {}, valid until {}", document.iss, time(document.exp)));
    Ok(())
}
