//! `casemate attestation boot-chain`: what the catalogue's images measure at their first boot, and how tokens name them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use public_api::collateral::{BootReference, BootReferenceName};
use reqwest::Method;

use super::read_text;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::profile::Profile;

/// What to do with boot chains.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The known ones.
    List,
    /// Add one, or change the one of that name.
    Put {
        /// JSON: `name`, `bootChain` as `casemate-paravisor inspect-image` prints it, `until` if it ends.
        file: PathBuf,
    },
    /// Remove one: tokens do not name it any more.
    Remove {
        /// Its name.
        name: String,
    },
}

/// Runs the command.
pub async fn run(command: Command, profile: &Profile, printer: &Printer) -> Result<()> {
    let service = profile.attestation_client().await?.0;
    match command {
        Command::List => {
            let known: Vec<BootReference> = service.get("/bootReferences").await?;
            list(&known, printer)
        }
        Command::Put { file } => {
            let reference: BootReference = serde_json::from_str(&read_text(&file)?).map_err(|error| {
                Failure::you(format!("{}: {error}", file.display()), "docs/how-to/collateral.md shows one")
            })?;
            let body = serde_json::to_value(&reference)?;
            service.send(Method::PUT, "/bootReferences", Some(&body)).await?;
            list(&[reference], printer)
        }
        Command::Remove { name } => {
            let body = serde_json::to_value(BootReferenceName { name: name.clone() })?;
            service.send(Method::POST, "/bootReferences:remove", Some(&body)).await?;
            printer.note(&format!("{name} is removed"));
            Ok(())
        }
    }
}

fn list(known: &[BootReference], printer: &Printer) -> Result<()> {
    let row = |one: &BootReference| {
        let chain = &one.boot_chain;
        let until = one.until.clone().unwrap_or_else(|| "-".to_owned());
        vec![one.name.clone(), chain.loader.clone(), chain.entry.clone(), chain.version.clone(), until]
    };
    let value = serde_json::to_value(known).context("boot chains as JSON")?;
    printer.result(&value, &["name", "loader", "entry", "version", "until"], known.iter().map(row).collect());
    Ok(())
}
