//! `casemate attestation`: what decides about evidence, over the attestation service's own routes.

mod boot_chain;
mod collateral;
mod minimum_tcb;
mod policy;
mod provider;
mod reference_values;
mod signer;
mod signing;

use std::path::Path;

use anyhow::{Context, Result};
use clap::Subcommand;
use public_api::encoding::from_base64_any;
use serde_json::Value;

use crate::failure::Failure;
use crate::printer::Printer;
use crate::profile::Profile;

/// What to look at or change.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attestation providers: named instances with policies, signers and keys of their own.
    #[command(subcommand)]
    Provider(provider::Command),
    /// Policies: what evidence gets a token. Show, check, try, stage, set, compare, roll back.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Certificates that sign the policies of an isolated provider.
    #[command(subcommand)]
    Signer(signer::Command),
    /// Certificates and revocation lists that evidence is verified with.
    #[command(subcommand)]
    Collateral(collateral::Command),
    /// The signed table of minimum patch levels.
    #[command(subcommand)]
    MinimumTcb(minimum_tcb::Command),
    /// Boot chains of images: how tokens name what a VM booted.
    #[command(subcommand)]
    BootChain(boot_chain::Command),
    /// Launches that are accepted.
    #[command(subcommand)]
    ReferenceValues(reference_values::Command),
}

/// Runs the command.
pub async fn run(command: Command, data_dir: &Path, printer: &Printer) -> Result<()> {
    let profile = Profile::load(data_dir)?;
    match command {
        Command::Provider(command) => provider::run(command, &profile, printer).await,
        Command::Policy(command) => policy::run(command, &profile, printer).await,
        Command::Signer(command) => signer::run(command, &profile, printer).await,
        Command::Collateral(command) => collateral::run(command, &profile, printer).await,
        Command::BootChain(command) => boot_chain::run(command, &profile, printer).await,
        Command::MinimumTcb(command) => minimum_tcb::run(command, &profile, printer).await,
        Command::ReferenceValues(command) => reference_values::run(command, &profile, printer).await,
    }
}

/// Which provider.
#[derive(Debug, clap::Args)]
pub struct OfProvider {
    /// The provider; `default` is the service's own.
    #[arg(long, default_value = "default", value_parser = provider_name)]
    provider: String,
}

impl OfProvider {
    /// A path of the provider.
    fn path(&self, rest: &str) -> String {
        format!("/providers/{}{rest}", self.provider)
    }
}

/// A name that can stand in a path.
fn provider_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if fits { Ok(text.to_owned()) } else { Err("expected letters, digits and hyphens".to_owned()) }
}

/// A text file that the user named.
fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::you(format!("{} cannot be read: {error}", path.display()), "name a text file that exists")
    })
}

/// Writes what was exported, or prints it.
fn write_or_print(file: Option<&Path>, text: &str, printer: &Printer) -> Result<()> {
    match file {
        None => printer.data(text),
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
            printer.note(&format!("written to {}", path.display()));
        }
    }
    Ok(())
}

/// The payload of a JWS that came over a connection which is trusted. Its signature is for those who get it otherwise.
fn payload(jws: &str) -> Result<Value> {
    let part = jws.split('.').nth(1).context("the answer is no JWS")?;
    let bytes = from_base64_any(part).context("the answer's payload is no base64url")?;
    serde_json::from_slice(&bytes).context("the answer's payload is no JSON")
}

/// Unix seconds as people read them.
fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
