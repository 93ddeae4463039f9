//! `casemate vm attest` and `casemate vm evidence`.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Target;
use super::create::{Expectation, sha256_hex};
use crate::arm::text;
use crate::commands::verify::{Signed, check};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::profile::Profile;

/// Fetches a VM's evidence bundle.
async fn fetch(target: &Target, profile: &Profile) -> Result<(Value, Value)> {
    let arm = profile.arm().await?;
    let path = arm.vm(&target.resource_group, &target.name);
    let vm = arm.get(&path).await?;
    let evidence =
        arm.get(&format!("{path}/attestationEvidence")).await.context("fetching the VM's evidence")?;
    Ok((vm, evidence))
}

/// Saves a VM's evidence.
pub async fn evidence(
    target: &Target,
    file: Option<&Path>,
    profile: &Profile,
    printer: &Printer,
) -> Result<()> {
    let (_, evidence) = fetch(target, profile).await?;
    let text = serde_json::to_string_pretty(&evidence)?;
    match file {
        None => printer.data(&text),
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
            printer.note(&format!("written to {}; verify it with: casemate verify {0}", path.display()));
        }
    }
    Ok(())
}

/// Verifies a VM's evidence and holds it against what was deployed.
pub async fn attest(target: &Target, profile: &Profile, data_dir: &Path, printer: &Printer) -> Result<()> {
    let (vm, evidence) = fetch(target, profile).await?;
    let file = data_dir.join("client/last-evidence.json");
    std::fs::write(&file, serde_json::to_vec(&evidence)?)
        .with_context(|| format!("writing {}", file.display()))?;
    let verdict = check(&file, profile.development_root.as_deref(), &Signed::default(), data_dir)?;
    let expectation = Expectation::load(data_dir, &target.resource_group, &target.name)?;
    let mut rows = comparisons(&vm, &verdict);
    let launch = &verdict["claims"]["x-ms-inittime"];
    rows.extend(services(profile, launch)?);
    rows.push(recovery_key(expectation.as_ref().and_then(|wish| wish.recovery_key.as_deref()), launch));
    rows.extend(expectation.iter().flat_map(|expectation| wishes(expectation, launch)));
    let held = rows.iter().all(|row| row.holds());
    let value =
        json!({"verdict": verdict, "comparison": rows.iter().map(Comparison::json).collect::<Vec<_>>()});
    printer.result(&value, &["claim", "expected", "found", ""], rows.iter().map(Comparison::row).collect());
    if verdict["verified"] == Value::Bool(true) && held {
        printer.note("the chain from report to token holds, and it is the VM that was deployed");
        return Ok(());
    }
    Err(Failure::refused(
        "the evidence is not that of the VM that was deployed",
        "do not send it anything secret; `casemate log --refused` tells more",
    ))
}

/// One line of the comparison.
struct Comparison {
    claim: &'static str,
    expected: String,
    found: String,
}

impl Comparison {
    fn holds(&self) -> bool {
        self.expected == self.found
    }

    fn row(&self) -> Vec<String> {
        let mark = if self.holds() { "ok" } else { "DIFFERS" };
        vec![self.claim.to_owned(), self.expected.clone(), self.found.clone(), mark.to_owned()]
    }

    fn json(&self) -> Value {
        json!({"claim": self.claim, "expected": self.expected, "found": self.found, "holds": self.holds()})
    }
}

fn line(claim: &'static str, expected: &str, found: &Value) -> Comparison {
    Comparison { claim, expected: expected.to_owned(), found: text(found) }
}

/// What the verifier says of the machine, and what the launch document says of the VM.
fn comparisons(vm: &Value, verdict: &Value) -> Vec<Comparison> {
    let claims = &verdict["claims"];
    let launch = &claims["x-ms-inittime"];
    let trust =
        if verdict["trustRoot"].is_null() { &claims["x-casemate-trust-root"] } else { &verdict["trustRoot"] };
    let properties = &vm["properties"];
    vec![
        line("verified", "true", &verdict["verified"]),
        line("x-ms-compliance-status", "azure-compliant-cvm", &claims["x-ms-compliance-status"]),
        line("x-casemate-trust-root", &text(&properties["casemate"]["trustRoot"]), trust),
        line("x-ms-sevsnpvm-is-debuggable", "false", &claims["x-ms-sevsnpvm-is-debuggable"]),
        line("x-ms-sevsnpvm-vmpl", "0", &claims["x-ms-sevsnpvm-vmpl"]),
        line("x-ms-inittime.vmId", &text(&properties["vmId"]).to_uppercase(), &launch["vmId"]),
        line("x-ms-inittime.resourceId", &text(&vm["id"]), &launch["resourceId"]),
    ]
}

/// Whom the VM was launched to trust: the tenant's own services under the tenant's own authority.
fn services(profile: &Profile, launch: &Value) -> Result<Vec<Comparison>> {
    let authority =
        std::fs::read(&profile.ca).with_context(|| format!("reading {}", profile.ca.display()))?;
    let key_service = text(&launch["keyId"]).split("/keys/").next().unwrap_or_default().to_owned();
    Ok(vec![
        line("x-ms-inittime.attestationUrl", &profile.attestation, &launch["attestationUrl"]),
        line("x-ms-inittime.keyId at", &profile.keys, &json!(key_service)),
        line("x-ms-inittime.trustBundleDigest", &sha256_hex(&authority), &launch["trustBundleDigest"]),
    ])
}

/// The recovery key that was ordered and no other; keys are shown by their digest.
fn recovery_key(ordered: Option<&str>, launch: &Value) -> Comparison {
    let shown = |key: Option<&str>| {
        key.map_or_else(|| "none".to_owned(), |pem| format!("SHA-256 {}", sha256_hex(pem.as_bytes())))
    };
    let found = launch.get("recoveryKey").map(text);
    line("x-ms-inittime.recoveryKey", &shown(ordered), &json!(shown(found.as_deref())))
}

/// What this client asked for.
fn wishes(expectation: &Expectation, launch: &Value) -> Vec<Comparison> {
    let mut rows = vec![
        line(
            "x-ms-inittime.provisioningDigest",
            &expectation.provisioning_digest,
            &launch["provisioningDigest"],
        ),
        line(
            "x-ms-inittime.securityEncryption",
            &expectation.security_encryption,
            &launch["securityEncryption"],
        ),
    ];
    if let Some(image) = &expectation.image_digest {
        rows.push(line("x-ms-inittime.imageDigest", image, &launch["imageDigest"]));
    }
    rows
}
