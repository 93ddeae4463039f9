//! `casemate attestation provider`: `Microsoft.Attestation/attestationProviders` of Resource Manager.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use public_api::encoding::to_base64;
use reqwest::Method;
use serde_json::{Value, json};

use super::signing::certificate_der;
use crate::arm::text;
use crate::printer::Printer;
use crate::profile::Profile;

/// Resource group of providers that were created without one.
const DEFAULT_GROUP: &str = "default";

/// Which provider.
#[derive(Debug, Args)]
pub struct Target {
    /// The provider's name, unique in the whole installation.
    #[arg(value_parser = super::provider_name)]
    name: String,
    /// Its resource group.
    #[arg(long, short = 'g', default_value = DEFAULT_GROUP)]
    resource_group: String,
}

/// What to do with providers.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The platform's own provider, and those of the subscription.
    List,
    /// One provider: its address, its trust model, whether it is ready.
    Show(Target),
    /// Create a provider; its resource group is made if it does not exist.
    Create {
        #[command(flatten)]
        target: Target,
        /// Certificate (PEM) that signs its policies, and makes it isolated; can be given several times.
        #[arg(long, value_name = "PEM")]
        policy_signer: Vec<PathBuf>,
        /// Whether attesting with a TPM's quote alone needs a token.
        #[arg(long, value_parser = ["Enabled", "Disabled"], default_value = "Enabled")]
        tpm_attestation_authentication: String,
    },
    /// Delete a provider with its policies, signers and keys: its tokens verify no longer.
    Delete(Target),
}

/// Runs the command.
pub async fn run(command: Command, profile: &Profile, printer: &Printer) -> Result<()> {
    let arm = profile.arm().await?;
    match command {
        Command::List => {
            let mut all = arm.list(&arm.all("Microsoft.Attestation/defaultProviders")).await?;
            all.extend(arm.list(&arm.all("Microsoft.Attestation/attestationProviders")).await?);
            let rows = all.iter().map(row).collect();
            printer.result(&json!(all), &["name", "group", "trust model", "status", "address"], rows);
        }
        Command::Show(target) => {
            show(&arm.get(&arm.attestation_provider(&target.resource_group, &target.name)).await?, printer);
        }
        Command::Create { target, policy_signer, tpm_attestation_authentication } => {
            let body = body(profile, &policy_signer, &tpm_attestation_authentication)?;
            arm.ensure_group(&target.resource_group, &profile.location).await?;
            let path = arm.attestation_provider(&target.resource_group, &target.name);
            let made = arm.put(&path, &body).await?;
            show(&made, printer);
            if made["properties"]["status"] != "Ready" {
                printer.note("the attestation service has not made it yet; that goes on");
            }
        }
        Command::Delete(target) => {
            let path = arm.attestation_provider(&target.resource_group, &target.name);
            arm.begin(Method::DELETE, &path, None).await?;
            printer.note(&format!("{} is deleted", target.name));
        }
    }
    Ok(())
}

fn body(profile: &Profile, signers: &[PathBuf], tpm: &str) -> Result<Value> {
    let mut properties = json!({"tpmAttestationAuthentication": tpm});
    let keys = signers.iter().map(|path| Ok(json!({"x5c": [to_base64(&certificate_der(path)?)]})));
    let keys = keys.collect::<Result<Vec<Value>>>()?;
    if !keys.is_empty() {
        properties["policySigningCertificates"] = json!({"keys": keys});
    }
    Ok(json!({"location": profile.location, "properties": properties}))
}

fn row(provider: &Value) -> Vec<String> {
    let id = text(&provider["id"]);
    let group = id.split('/').nth(4).filter(|_| id.starts_with("/subscriptions/")).unwrap_or("-");
    let property = |name: &str| text(&provider["properties"][name]);
    vec![
        text(&provider["name"]),
        group.to_owned(),
        property("trustModel"),
        property("status"),
        property("attestUri"),
    ]
}

fn show(provider: &Value, printer: &Printer) {
    let property = |name: &str| text(&provider["properties"][name]);
    let mut facts = vec![
        ("name", text(&provider["name"])),
        ("address", property("attestUri")),
        ("trust model", property("trustModel")),
        ("status", property("status")),
        ("tpm attestation needs a token", property("tpmAttestationAuthentication")),
        ("id", text(&provider["id"])),
    ];
    if let Some(detail) = provider["properties"]["casemate"]["detail"].as_str() {
        facts.push(("detail", detail.to_owned()));
    }
    printer.facts(provider, &facts);
}
