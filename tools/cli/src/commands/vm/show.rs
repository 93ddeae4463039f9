//! `casemate vm list` and `casemate vm show`.

use anyhow::Result;
use serde_json::Value;

use super::Target;
use crate::arm::text;
use crate::printer::Printer;
use crate::profile::Profile;

/// All VMs of the subscription.
pub async fn list(profile: &Profile, printer: &Printer) -> Result<()> {
    let arm = profile.arm().await?;
    let vms = arm.list(&arm.all("Microsoft.Compute/virtualMachines")).await?;
    let rows = vms.iter().map(row).collect();
    printer.result(
        &Value::Array(vms.clone()),
        &["name", "group", "size", "provisioning", "host says", "trust root"],
        rows,
    );
    Ok(())
}

fn row(vm: &Value) -> Vec<String> {
    let properties = &vm["properties"];
    let id = text(&vm["id"]);
    let group = id.split('/').nth(4).unwrap_or("-").to_owned();
    vec![
        text(&vm["name"]),
        group,
        text(&properties["hardwareProfile"]["vmSize"]),
        text(&properties["provisioningState"]),
        text(&properties["casemate"]["hostPhase"]),
        text(&properties["casemate"]["trustRoot"]),
    ]
}

/// One VM.
pub async fn one(target: &Target, profile: &Profile, printer: &Printer) -> Result<()> {
    let arm = profile.arm().await?;
    print(&arm.get(&arm.vm(&target.resource_group, &target.name)).await?, printer);
    Ok(())
}

/// Prints a VM.
pub fn print(vm: &Value, printer: &Printer) {
    let properties = &vm["properties"];
    let ours = &properties["casemate"];
    let security = &properties["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"];
    let mut facts = vec![
        ("name", text(&vm["name"])),
        ("id", text(&vm["id"])),
        ("vm id", text(&properties["vmId"])),
        ("size", text(&properties["hardwareProfile"]["vmSize"])),
        ("security type", text(&properties["securityProfile"]["securityType"])),
        ("encryption", text(&security["securityEncryptionType"])),
        ("provisioning", text(&properties["provisioningState"])),
        ("host says", text(&ours["hostPhase"])),
        ("trust root", text(&ours["trustRoot"])),
    ];
    if let Some(port) = ours["sshPort"].as_u64() {
        facts.push(("address", format!("127.0.0.1:{port} (ssh)")));
    }
    if let Some(failure) = ours["failure"].as_object() {
        for (name, label) in FAILURE_PARTS {
            facts.push((label, failure.get(name).map_or_else(|| "-".to_owned(), text)));
        }
    }
    printer.facts(vm, &facts);
}

const FAILURE_PARTS: [(&str, &str); 6] = [
    ("code", "refused because"),
    ("claim", "  claim"),
    ("expected", "  expected"),
    ("actual", "  found"),
    ("rule", "  rule"),
    ("remedy", "  remedy"),
];
