//! `casemate vm key` and `casemate vm key-set`: under which key a VM is.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::{DEFAULT_GROUP, Target};
use crate::arm::{Arm, text};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::profile::Profile;

/// How long a running VM is given to move; a refusal is told sooner.
const PATIENCE: Duration = Duration::from_secs(120);

/// `vm key`.
#[derive(Debug, Args)]
pub struct Change {
    #[command(flatten)]
    target: Target,
    /// Name of a disk encryption set in the same group: the customer's key from now on.
    #[arg(long, conflicts_with = "platform")]
    disk_encryption_set: Option<String>,
    /// The platform's own key from now on. The customer's key must let it follow (`casemate key let-follow`).
    #[arg(long)]
    platform: bool,
}

/// `vm key-set`.
#[derive(Debug, Args)]
pub struct Set {
    /// The set's name.
    name: String,
    /// Its resource group.
    #[arg(long, short = 'g', default_value = DEFAULT_GROUP)]
    resource_group: String,
    /// URL of the key with its version.
    #[arg(long)]
    key: String,
    /// Follow the key: newer versions are taken when they come.
    #[arg(long)]
    latest: bool,
}

/// Shows or changes a VM's key.
pub async fn change(change: &Change, profile: &Profile, printer: &Printer) -> Result<()> {
    let arm = profile.arm().await?;
    let Target { name, resource_group } = &change.target;
    let path = arm.vm(resource_group, name);
    if change.platform || change.disk_encryption_set.is_some() {
        let before = arm.get(&path).await?;
        let disk = before["properties"]["storageProfile"]["osDisk"]["managedDisk"]["id"].as_str();
        let disk = disk.context("the VM shows no disk")?.to_owned();
        let profile = security_profile(&arm, change);
        let body = json!({"properties": {"securityProfile": profile}});
        arm.begin(Method::PATCH, &disk, Some(&body)).await?;
        let stale = &before["properties"]["casemate"]["key"]["failure"];
        wait(&arm, &path, (&wanted(&arm, change).await?, stale), printer).await?;
    }
    let vm = arm.get(&path).await?;
    let key = &vm["properties"]["casemate"]["key"];
    let facts = [
        ("wanted", text(&key["wanted"])),
        ("in use", text(&key["inUse"])),
        ("state", text(&key["state"])),
        ("refused because", text(&key["failure"]["code"])),
    ];
    printer.facts(key, &facts);
    Ok(())
}

fn security_profile(arm: &Arm, change: &Change) -> Value {
    match &change.disk_encryption_set {
        Some(set) => json!({
            "securityType": "ConfidentialVM_DiskEncryptedWithCustomerKey",
            "secureVMDiskEncryptionSetId": set_path(arm, &change.target.resource_group, set),
        }),
        None => json!({"securityType": "ConfidentialVM_DiskEncryptedWithPlatformKey"}),
    }
}

fn set_path(arm: &Arm, group: &str, name: &str) -> String {
    format!("{}/providers/Microsoft.Compute/diskEncryptionSets/{name}", arm.group(group))
}

/// Waits until a running VM has moved. A VM that is off moves when it starts. The refusal that stood there before may be of
/// an earlier try: the host tries again by itself.
async fn wait(arm: &Arm, path: &str, (wanted, stale): (&Wanted, &Value), printer: &Printer) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let vm = arm.get(path).await?;
        let ours = &vm["properties"]["casemate"];
        let runs = ["running", "booted", "starting"].contains(&text(&ours["hostPhase"]).as_str());
        let known = wanted.is(&vm);
        match ours["key"]["state"].as_str() {
            Some("inUse") if known && ours["key"]["wanted"] == ours["key"]["inUse"] => return Ok(()),
            Some("refused") if known && (ours["key"]["failure"] != *stale || Instant::now() > deadline) => {
                let failure = &ours["key"]["failure"];
                let said = format!("{}: {}", text(&failure["code"]), text(&failure["actual"]));
                return Err(Failure::refused(said, text(&failure["remedy"])));
            }
            _ if !runs => {
                printer.note("the VM is off: it moves to that key when it starts");
                return Ok(());
            }
            _ if Instant::now() > deadline => {
                let said = format!("the VM has not moved within {} s", PATIENCE.as_secs());
                return Err(Failure::refused(said, "`casemate vm key NAME` shows how far it is"));
            }
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// The key that a VM shall be under after a change.
enum Wanted {
    /// The set's.
    Customer(String),
    /// Its own, whose name is made of the VM's id.
    Platform,
}

impl Wanted {
    /// Whether the platform has taken the change up.
    fn is(&self, vm: &Value) -> bool {
        let properties = &vm["properties"];
        let key = text(&properties["casemate"]["key"]["wanted"]);
        match self {
            Self::Customer(url) => key == *url,
            Self::Platform => key.contains(&format!("/keys/vm-{}/", text(&properties["vmId"]))),
        }
    }
}

async fn wanted(arm: &Arm, change: &Change) -> Result<Wanted> {
    let Some(set) = &change.disk_encryption_set else { return Ok(Wanted::Platform) };
    let set = arm.get(&set_path(arm, &change.target.resource_group, set)).await?;
    Ok(Wanted::Customer(text(&set["properties"]["activeKey"]["keyUrl"])))
}

/// Makes a set, or changes its key, and waits for its running VMs.
pub async fn set(set: &Set, profile: &Profile, printer: &Printer) -> Result<()> {
    let arm = profile.arm().await?;
    let path = set_path(&arm, &set.resource_group, &set.name);
    let location = arm.get(&arm.group(&set.resource_group)).await?["location"].clone();
    let body = json!({
        "location": location,
        "identity": {"type": "SystemAssigned"},
        "properties": {
            "encryptionType": "ConfidentialVmEncryptedWithCustomerKey",
            "activeKey": {"keyUrl": set.key},
            "rotationToLatestKeyVersionEnabled": set.latest,
        },
    });
    let operation = arm.begin(Method::PUT, &path, Some(&body)).await?;
    let mut progress = printer.progress();
    progress.show(&format!("{}: moving running VMs to the key", set.name));
    let end = arm.finish(operation, None, &mut progress).await;
    drop(progress);
    if let Err(error) = end {
        let hint = "let the old key's owner say `casemate key let-follow OLD --successor NEW`, or put the old key back";
        return Err(Failure::refused(format!("not every VM of {} moved: {error:#}", set.name), hint));
    }
    let shown = arm.get(&path).await?;
    let properties = &shown["properties"];
    let facts = [
        ("name", text(&shown["name"])),
        ("id", text(&shown["id"])),
        ("key", text(&properties["activeKey"]["keyUrl"])),
        ("state", text(&properties["provisioningState"])),
    ];
    printer.facts(&shown, &facts);
    Ok(())
}
