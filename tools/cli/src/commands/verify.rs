//! `casemate verify`: checks an evidence bundle offline, with the attestation service's own code.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::arm::text;
use crate::failure::Failure;
use crate::platform::programs;
use crate::printer::Printer;
use crate::profile::Profile;

/// What to verify, and against what.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The bundle, as `casemate vm evidence` wrote it.
    bundle: PathBuf,
    /// Trust this development root too (PEM); the local platform's own is taken if there is one.
    #[arg(long)]
    development_root: Option<PathBuf>,
    #[command(flatten)]
    signed: Signed,
}

/// Signed documents to judge by, and who may sign them. Those of a service: `casemate attestation minimum-tcb show` and
/// `GET /referenceValues`.
#[derive(Debug, Default, clap::Args)]
pub struct Signed {
    /// Table of minimum patch levels (compact JWS).
    #[arg(long, requires = "minimum_tcb_signer")]
    minimum_tcb: Option<PathBuf>,
    /// Who may sign that table: PEM of keys or certificates, or a JWKS.
    #[arg(long)]
    minimum_tcb_signer: Vec<PathBuf>,
    /// Reference values (compact JWS); several are possible.
    #[arg(long, requires = "reference_signer")]
    reference_values: Vec<PathBuf>,
    /// Who may sign reference values: PEM of keys or certificates, or a JWKS.
    #[arg(long)]
    reference_signer: Vec<PathBuf>,
    /// Certificate revocation list for VCEKs, DER or PEM.
    #[arg(long)]
    crl: Vec<PathBuf>,
    /// The same for VLEKs.
    #[arg(long)]
    vlek_crl: Vec<PathBuf>,
    /// The keys of the service that signed the token (its `GET /certs`).
    #[arg(long)]
    jwks: Option<PathBuf>,
}

impl Signed {
    /// As the attestation service's program takes them.
    fn arguments(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let given = [
            ("--minimum-tcb", self.minimum_tcb.as_slice()),
            ("--minimum-tcb-signer", &self.minimum_tcb_signer),
            ("--reference-values", &self.reference_values),
            ("--reference-signer", &self.reference_signer),
            ("--crl", &self.crl),
            ("--vlek-crl", &self.vlek_crl),
            ("--jwks", self.jwks.as_slice()),
        ];
        given.into_iter().flat_map(|(name, paths)| paths.iter().map(move |path| (name, path)))
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments, data_dir: &Path, printer: &Printer) -> Result<()> {
    let root = match &arguments.development_root {
        Some(root) => Some(root.clone()),
        None => Profile::load(data_dir).ok().and_then(|profile| profile.development_root),
    };
    let verdict = check(&arguments.bundle, root.as_deref(), &arguments.signed, data_dir)?;
    print(&verdict, printer);
    if verdict["verified"] == Value::Bool(true) {
        return Ok(());
    }
    let denial = &verdict["denial"];
    let message = format!(
        "{}: {}: expected {}, found {} (rule: {})",
        text(&denial["code"]),
        text(&denial["claim"]),
        text(&denial["expected"]),
        text(&denial["actual"]),
        text(&denial["rule"])
    );
    Err(Failure::refused(message, text(&denial["remedy"])))
}

/// The verdict of the attestation service's binary, as JSON.
pub fn check(
    bundle: &Path,
    development_root: Option<&Path>,
    signed: &Signed,
    data_dir: &Path,
) -> Result<Value> {
    let mut command = Command::new(programs::ours("casemate-attestation")?);
    command.arg("verify").arg("--bundle").arg(bundle);
    if let Some(root) = development_root {
        command.arg("--development-root").arg(root);
    }
    let config = data_dir.join("attestation/config.toml");
    if config.exists() {
        command.arg("--reference").arg(config);
    }
    signed.arguments().for_each(|(name, path)| {
        command.arg(name).arg(path);
    });
    let output = command.output().context("running casemate-attestation verify")?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!("casemate-attestation verify said: {}", String::from_utf8_lossy(&output.stderr).trim())
    })
}

fn print(verdict: &Value, printer: &Printer) {
    let claims = verdict["claims"].as_object().cloned().unwrap_or_default();
    let rows = claims.iter().map(|(name, value)| vec![name.clone(), short(&text(value))]).collect();
    printer.result(verdict, &["claim", "value"], rows);
}

fn short(text: &str) -> String {
    if text.chars().count() <= 120 {
        return text.to_owned();
    }
    format!("{}…", text.chars().take(119).collect::<String>())
}
