//! `casemate attestation signer`: the certificates that sign an isolated provider's policies. One of them signs each change.

use std::path::PathBuf;

use anyhow::Result;
use aws_lc_rs::digest;
use clap::{Args, Subcommand};
use public_api::attestation::AttestResponse;
use public_api::client::Connection;
use public_api::encoding::from_base64_any;
use reqwest::Method;
use serde_json::Value;

use super::signing::{Signing, certificate_der};
use super::{OfProvider, payload};
use crate::arm::text;
use crate::printer::Printer;
use crate::profile::Profile;

/// A change.
#[derive(Debug, Args)]
pub struct Change {
    /// The certificate (PEM) to add or remove.
    signer: PathBuf,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    of: OfProvider,
}

/// What to do with policy signers.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The provider's signers, and the keys that sign its tokens.
    List(OfProvider),
    /// Add a signer.
    Add(Change),
    /// Remove a signer; the last one stays.
    Remove(Change),
    /// Make the next token signing key: published now, signing in an hour.
    RotateTokenKey(OfProvider),
}

/// Runs the command.
pub async fn run(command: Command, profile: &Profile, printer: &Printer) -> Result<()> {
    let service = profile.attestation_client().await?.0;
    match command {
        Command::List(of) => list(&of, &service, printer).await,
        Command::Add(change) => apply(&change, "add", &service, printer).await,
        Command::Remove(change) => apply(&change, "remove", &service, printer).await,
        Command::RotateTokenKey(of) => {
            let path = of.path("/signingKeys:rotate");
            let keys: Value = service.exchange(Method::POST, &path, "").await?;
            let row = |key: &Value| vec![text(&key["kid"]), text(&key["alg"])];
            let rows = keys["keys"].as_array().into_iter().flatten().map(row).collect();
            printer.result(&keys, &["key", "algorithm"], rows);
            Ok(())
        }
    }
}

async fn list(of: &OfProvider, service: &Connection, printer: &Printer) -> Result<()> {
    let answer: AttestResponse = service.get(&of.path("/certificates")).await?;
    let claims = payload(&answer.token)?;
    let set = &claims["x-ms-policy-certificates"];
    let rows: Vec<_> = set["keys"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        printer.note(
            "no signers: whoever may change the provider sets its policies, signed or not (trust model AAD)",
        );
    }
    printer.result(set, &["sha-256 of the certificate", "key"], rows);
    Ok(())
}

fn row(jwk: &Value) -> Vec<String> {
    let der = jwk["x5c"][0].as_str().and_then(|text| from_base64_any(text).ok()).unwrap_or_default();
    vec![hex::encode(digest::digest(&digest::SHA256, &der)), text(&jwk["kty"])]
}

async fn apply(change: &Change, verb: &str, service: &Connection, printer: &Printer) -> Result<()> {
    let document = change.signing.certificate_change(&certificate_der(&change.signer)?)?;
    let path = change.of.path(&format!("/certificates:{verb}"));
    let answer: AttestResponse = service.exchange(Method::POST, &path, &document).await?;
    let claims = payload(&answer.token)?;
    let facts = [
        ("result", text(&claims["x-ms-policycertificates-result"])),
        ("sha-1 of the certificate", text(&claims["x-ms-certificate-thumbprint"])),
    ];
    printer.facts(&claims, &facts);
    Ok(())
}
