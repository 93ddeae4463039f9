//! `casemate attestation policy`: from looking at a policy to changing it without surprise.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use public_api::attestation::AttestResponse;
use public_api::attestation_policy::{
    AttestationType, DryRun, DryRunChange, PolicyDifference, PolicyVersion,
};
use public_api::client::Connection;
use public_api::encoding::from_base64_any;
use reqwest::Method;
use serde_json::{Value, json};

use super::signing::Signing;
use super::{OfProvider, payload, read_text, time};
use crate::arm::text;
use crate::printer::Printer;
use crate::profile::Profile;

/// Which policy.
#[derive(Debug, Args)]
pub struct Target {
    #[command(flatten)]
    of: OfProvider,
    /// The evidence that it decides about: SevSnpVm, AzureGuest or Tpm.
    #[arg(long = "type", value_name = "TYPE", default_value = "SevSnpVm", value_parser = kind)]
    kind: AttestationType,
}

/// A policy to send.
#[derive(Debug, Args)]
pub struct Document {
    /// The policy's text, or a JWS of it.
    file: PathBuf,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    target: Target,
}

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The policy that decides; the one that the service ships where none was set.
    Show(Target),
    /// Whether a policy can be read; nothing is changed.
    Check(Document),
    /// Try a policy on the newest evidence of each VM: whom it would treat otherwise, and why.
    DryRun(Document),
    /// Try a policy on every request from now on; the log tells whom it would refuse, and nobody is refused.
    Stage(Document),
    /// The staged policy decides from now on.
    Promote(Target),
    /// The staged policy is not tried any more.
    Withdraw(Target),
    /// A policy decides from now on.
    Set(Document),
    /// The policy that the service ships decides again.
    Reset {
        #[command(flatten)]
        signing: Signing,
        #[command(flatten)]
        target: Target,
    },
    /// Every version, with who set it when.
    History(Target),
    /// Two versions compared; 0 is the one that the service ships.
    Diff {
        /// The older version.
        from: u64,
        /// The newer version.
        to: u64,
        #[command(flatten)]
        target: Target,
    },
    /// An earlier version decides again.
    Rollback {
        /// Which version.
        version: u64,
        #[command(flatten)]
        target: Target,
    },
}

impl Target {
    fn path(&self, rest: &str) -> String {
        self.of.path(&format!("/policies/{}{rest}", self.kind.name()))
    }
}

impl Document {
    /// The JWS to send.
    fn jws(&self) -> Result<String> {
        self.signing.policy(&read_text(&self.file)?)
    }
}

fn kind(text: &str) -> Result<AttestationType, String> {
    let names = AttestationType::ALL.map(AttestationType::name).join(", ");
    AttestationType::from_name(text).ok_or_else(|| format!("expected one of {names}"))
}

/// Runs the command.
pub async fn run(command: Command, profile: &Profile, printer: &Printer) -> Result<()> {
    let service = profile.attestation_client().await?.0;
    match command {
        Command::Show(target) => show(&target, &service, printer).await,
        Command::Check(document) => check(&document, &service, printer).await,
        Command::DryRun(document) => dry_run(&document, &service, printer).await,
        Command::Stage(document) => {
            let path = document.target.path(":stage");
            changed(Method::POST, &path, &document.jws()?, &service, printer).await
        }
        Command::Set(document) => {
            changed(Method::PUT, &document.target.path(""), &document.jws()?, &service, printer).await
        }
        Command::Reset { signing, target } => {
            changed(Method::POST, &target.path(":reset"), &signing.empty()?, &service, printer).await
        }
        Command::Promote(target) => versions(Method::POST, &target.path(":promote"), &service, printer).await,
        Command::Withdraw(target) => {
            versions(Method::POST, &target.path(":withdraw"), &service, printer).await
        }
        Command::History(target) => versions(Method::GET, &target.path("/versions"), &service, printer).await,
        Command::Rollback { version, target } => {
            let path = target.path(&format!(":rollback?version={version}"));
            versions(Method::POST, &path, &service, printer).await
        }
        Command::Diff { from, to, target } => {
            let path = target.path(&format!("/difference?from={from}&to={to}"));
            let difference: PolicyDifference = service.get(&path).await?;
            printer.text(&serde_json::to_value(&difference)?, difference.difference.trim_end());
            Ok(())
        }
    }
}

async fn show(target: &Target, service: &Connection, printer: &Printer) -> Result<()> {
    let answer: AttestResponse = service.get(&target.path("")).await?;
    let claims = payload(&answer.token)?;
    let jws = claims["x-ms-policy"].as_str().context("the answer holds no policy")?;
    let encoded = payload(jws)?;
    let encoded = encoded["AttestationPolicy"].as_str().context("the policy has no text")?;
    let policy = String::from_utf8(from_base64_any(encoded)?).context("the policy is not UTF-8")?;
    let value = json!({
        "provider": target.of.provider, "type": target.kind.name(), "policy": policy, "jws": jws,
        "signed": !jws.ends_with('.'),
    });
    printer.text(&value, policy.trim_end());
    Ok(())
}

async fn tried(document: &Document, service: &Connection) -> Result<DryRun> {
    let path = document.target.path(":dryRun");
    Ok(service.exchange(Method::POST, &path, &document.jws()?).await?)
}

async fn check(document: &Document, service: &Connection, printer: &Printer) -> Result<()> {
    let result = tried(document, service).await?;
    let value = json!({"policyHash": result.policy_hash});
    printer.facts(&value, &[("policy hash", result.policy_hash)]);
    printer.note("the policy can be read; `casemate attestation policy dry-run` tells what it would change");
    Ok(())
}

async fn dry_run(document: &Document, service: &Connection, printer: &Printer) -> Result<()> {
    let result = tried(document, service).await?;
    let rows = result.changes.iter().map(change).collect();
    printer.result(&serde_json::to_value(&result)?, &["vm", "seen on", "now", "then"], rows);
    let (evaluated, permitted) = (result.evaluated, result.permitted);
    printer.note(&format!(
        "tried on the evidence of {evaluated} VMs: permits {permitted}, treats {} otherwise than the policy in force",
        result.changes.len()
    ));
    Ok(())
}

fn change(change: &DryRunChange) -> Vec<String> {
    let said = |denial: &Option<public_api::Denial>| {
        denial.as_ref().map_or_else(|| "permitted".to_owned(), |denial| format!("refused: {denial}"))
    };
    vec![change.subject.clone(), time(change.seen_on), said(&change.refused_now), said(&change.refused_then)]
}

/// Sends a document; shows what the service made of it.
async fn changed(
    method: Method,
    path: &str,
    document: &str,
    service: &Connection,
    printer: &Printer,
) -> Result<()> {
    let answer: AttestResponse = service.exchange(method, path, document).await?;
    let claims = payload(&answer.token)?;
    let facts = [
        ("result", text(&claims["x-ms-policy-result"])),
        ("token hash", text(&claims["x-ms-policy-token-hash"])),
        ("signed", (!claims["x-ms-policy-signer"].is_null()).to_string()),
    ];
    printer.facts(&claims, &facts);
    Ok(())
}

async fn versions(method: Method, path: &str, service: &Connection, printer: &Printer) -> Result<()> {
    let response = service.send(method, path, None).await?;
    let versions: Vec<PolicyVersion> = response.json().await.context("reading the versions")?;
    let row = |version: &PolicyVersion| {
        vec![
            version.version.to_string(),
            text(&serde_json::to_value(version.state).unwrap_or(Value::Null)),
            time(version.set_on),
            version.set_by.clone(),
            version.signer.clone().unwrap_or_else(|| "-".to_owned()),
            version.policy_hash.clone(),
        ]
    };
    let rows = versions.iter().map(row).collect();
    printer.result(
        &serde_json::to_value(&versions)?,
        &["version", "state", "set on", "set by", "signer", "policy hash"],
        rows,
    );
    Ok(())
}
