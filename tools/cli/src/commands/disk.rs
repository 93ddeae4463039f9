//! `casemate disk`: a VM's disk without its platform, for the tenant who has the private key. The paravisor's binary does the
//! work, because it is the one that knows what it wrote; `docs/recovery.md` tells the whole.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::Value;
use uuid::Uuid;

use super::verify::{Signed, check};
use super::vm::DEFAULT_GROUP;
use crate::arm::text;
use crate::failure::Failure;
use crate::platform::programs;
use crate::printer::Printer;
use crate::profile::Profile;

/// What to do with disks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a stopped VM's disk as one plain image, which stock cryptsetup opens with the recovery passphrase.
    Export(Box<Export>),
    /// Unwrap a VM's recovery passphrase with the tenant's private key.
    RecoveryKey(RecoveryKey),
}

/// What to export. Name a VM of this machine's platform, or a folder.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Export {
    /// The VM's name.
    #[arg(required_unless_present = "host_folder", conflicts_with = "host_folder")]
    name: Option<String>,
    /// Its resource group.
    #[arg(long, short = 'g', default_value = DEFAULT_GROUP)]
    resource_group: String,
    /// The VM's folder, or a copy of it; no service is asked.
    #[arg(long, value_name = "DIR")]
    host_folder: Option<PathBuf>,
    /// The VM's id, which the folder must be of.
    #[arg(long, conflicts_with = "name")]
    vm_id: Option<Uuid>,
    /// The private key (PEM, PKCS #8) of the public key that the VM was deployed with.
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// The image to make.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Evidence of the VM that was kept (`casemate vm evidence`): it names the key that the VM's own paravisor made.
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprint")]
    evidence: Option<PathBuf>,
    /// The same out of the evidence: its claim recovery-document-key (64 hex digits).
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    /// The generation that the files must have at least.
    #[arg(long)]
    generation: Option<u64>,
    /// Export although document and guest state are of different generations, or older than --generation.
    #[arg(long)]
    accept_older: bool,
    /// Export although the guest itself changed its LUKS2 header or overwrote its file system.
    #[arg(long)]
    accept_damaged: bool,
}

/// Which passphrase.
#[derive(Debug, Args)]
pub struct RecoveryKey {
    /// The recovery file of the VM's folder: guest-state.vmgs.recovery.json.
    file: PathBuf,
    /// The private key (PEM, PKCS #8) of the public key that the VM was deployed with.
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// The file to make; only this user may read it.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// Runs the command.
pub async fn run(command: Command, data_dir: &Path, printer: &Printer) -> Result<()> {
    match command {
        Command::Export(export) => export.run(data_dir, printer).await,
        Command::RecoveryKey(asked) => {
            let mut paravisor = paravisor("recovery-key")?;
            paravisor.arg("--file").arg(&asked.file).arg("--key").arg(&asked.key).arg("--to").arg(&asked.to);
            let made = answer(paravisor)?;
            printer.facts(
                &made,
                &[("vm id", text(&made["vmId"])), ("passphrase written to", text(&made["file"]))],
            );
            Ok(())
        }
    }
}

impl Export {
    async fn run(&self, data_dir: &Path, printer: &Printer) -> Result<()> {
        let (folder, vm_id) = self.folder(data_dir).await?;
        let fingerprint = match &self.evidence {
            Some(bundle) => Some(fingerprint_in(bundle, data_dir)?),
            None => self.fingerprint.clone(),
        };
        let mut paravisor = paravisor("export-disk")?;
        paravisor.arg("--host-folder").arg(folder).arg("--key").arg(&self.key).arg("--to").arg(&self.to);
        let generation = self.generation.map(|generation| generation.to_string());
        let known =
            [("--vm-id", vm_id), ("--fingerprint", fingerprint.clone()), ("--generation", generation)];
        for (name, value) in known {
            paravisor.args(value.map(|value| format!("{name}={value}")));
        }
        let flags = [("--accept-older", self.accept_older), ("--accept-damaged", self.accept_damaged)];
        paravisor.args(flags.iter().filter(|(_, given)| *given).map(|(name, _)| name));
        let made = answer(paravisor)?;
        print(&made, fingerprint.is_some(), printer);
        Ok(())
    }

    /// Where the VM's files lie, and its id if it is known.
    async fn folder(&self, data_dir: &Path) -> Result<(PathBuf, Option<String>)> {
        let Some(name) = &self.name else {
            let folder = self.host_folder.clone().context("clap asks for a name or a folder")?;
            return Ok((folder, self.vm_id.map(|id| id.to_string())));
        };
        let arm = Profile::load(data_dir)?.arm().await?;
        let vm = arm.get(&arm.vm(&self.resource_group, name)).await?;
        let id = text(&vm["properties"]["vmId"]).to_uppercase();
        let folder = data_dir.join("host/vms").join(&id);
        if folder.is_dir() {
            return Ok((folder, Some(id)));
        }
        Err(Failure::you(
            format!("the files of {name} are not on this machine ({} is no folder)", folder.display()),
            format!("copy the folder vms/{id} from the VM's host, and give it as --host-folder"),
        ))
    }
}

/// The fingerprint that a VM's kept evidence names.
fn fingerprint_in(bundle: &Path, data_dir: &Path) -> Result<String> {
    let root = Profile::load(data_dir).ok().and_then(|profile| profile.development_root);
    let verdict = check(bundle, root.as_deref(), &Signed::default(), data_dir)?;
    fingerprint_of(&verdict)
}

fn fingerprint_of(verdict: &Value) -> Result<String> {
    if verdict["verified"] != Value::Bool(true) {
        return Err(Failure::refused(
            "the evidence does not verify",
            "`casemate verify` says why; evidence that cannot be verified any more is replaced by --fingerprint",
        ));
    }
    let claim = &verdict["claims"]["x-ms-runtime"]["recovery-document-key"];
    claim.as_str().map(ToOwned::to_owned).ok_or_else(|| {
        Failure::you(
            "the evidence names no recovery document's key",
            "take evidence of a start after which the recovery document existed, or leave --evidence out",
        )
    })
}

fn paravisor(verb: &str) -> Result<Process> {
    let mut command = Process::new(programs::ours("casemate-paravisor")?);
    command.arg(verb);
    Ok(command)
}

/// The paravisor's answer, or its refusal.
fn answer(mut paravisor: Process) -> Result<Value> {
    let output = paravisor.output().context("running casemate-paravisor")?;
    let said = || format!("casemate-paravisor said: {}", String::from_utf8_lossy(&output.stderr).trim());
    let value: Value = serde_json::from_slice(&output.stdout).with_context(said)?;
    if output.status.success() { Ok(value) } else { Err(refusal(&value)) }
}

fn refusal(failure: &Value) -> anyhow::Error {
    let part = |name: &str| text(&failure[name]);
    let message = format!(
        "{}: {}: expected {}, found {} (rule: {})",
        part("code"),
        part("claim"),
        part("expected"),
        part("actual"),
        part("rule")
    );
    Failure::refused(message, part("remedy"))
}

fn print(made: &Value, compared: bool, printer: &Printer) {
    let facts = [
        ("image", text(&made["image"])),
        ("vm id", text(&made["vmId"])),
        ("generation", text(&made["generation"])),
        ("bytes", text(&made["bytes"])),
        ("volume starts at", text(&made["volumeStart"])),
        ("luks uuid", text(&made["luksUuid"])),
        ("recovery document key", text(&made["recoveryDocumentKey"])),
    ];
    printer.facts(made, &facts);
    if let Some(damage) = made["damage"].as_str() {
        printer.note(&format!("exported as the guest left it: {damage}"));
    }
    if !compared {
        printer.note(
            "nothing shows yet that this VM's own paravisor made these files: compare `recovery document key` with the \
             VM's evidence, or give --evidence",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_verified_evidence_names_a_fingerprint() {
        let claims = json!({"x-ms-runtime": {"recovery-document-key": "ab"}});
        let of = |verdict: Value| fingerprint_of(&verdict).map_err(|error| error.to_string());
        assert_eq!(of(json!({"verified": true, "claims": claims})), Ok("ab".to_owned()));
        let unverified = of(json!({"verified": false, "claims": claims})).unwrap_err();
        assert_eq!(unverified, "the evidence does not verify");
        let without = of(json!({"verified": true, "claims": {"x-ms-runtime": {}}})).unwrap_err();
        assert_eq!(without, "the evidence names no recovery document's key");
    }

    #[test]
    fn a_refusal_keeps_its_parts() {
        let failure =
            json!({"code": "C", "claim": "c", "expected": "e", "actual": "a", "rule": "r", "remedy": "m"});
        assert_eq!(refusal(&failure).to_string(), "C: c: expected e, found a (rule: r)");
    }
}
