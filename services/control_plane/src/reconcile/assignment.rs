//! A VM with a key and a host gets its launch document, and so becomes one of the host's assignments.
//!
//! The document is written once; only another key changes it later ([`super::key_change`]). Everything that the VM's evidence
//! will show is in it or hashed by it.

use super::{PassError, Reconcilers};
use crate::app::launch::{LaunchInputs, launch_document, launch_text};
use crate::app::{now_millis, observation::milestone};
use crate::store::VmRow;

/// Whether a VM is ready to be assigned.
pub fn is_ready(vm: &VmRow) -> bool {
    let open = !vm.resource.deleted && vm.failure.is_none() && vm.launch_document.is_none();
    open && vm.key_id.is_some() && vm.host.is_some()
}

/// Runs once over all VMs.
pub async fn run(reconcilers: &Reconcilers) -> Result<(), PassError> {
    for vm in reconcilers.app.store.vms().await?.iter().filter(|vm| is_ready(vm)) {
        assign(reconcilers, vm).await?;
    }
    Ok(())
}

async fn assign(reconcilers: &Reconcilers, vm: &VmRow) -> Result<(), PassError> {
    let app = &reconcilers.app;
    let (Some(key_id), Some(host)) = (&vm.key_id, &vm.host) else { return Ok(()) };
    let document = launch_document(LaunchInputs {
        vm_id: &vm.vm_id,
        resource_id: &vm.resource.id,
        facts: &vm.facts,
        provisioning_data: &vm.provisioning_data,
        key_id,
        attestation_url: &app.config.attestation_url,
        trust_bundle: &app.trust_bundle,
        key_check: app.config.key_check.into(),
    });
    reconcilers.probe.at("before noting the launch document")?;
    let mut tx = app.store.begin().await?;
    // A deletion may have come in since the VM was read: then nobody would remove what is assigned now.
    if tx.vm(&vm.resource.key).await?.is_none_or(|newest| !is_ready(&newest)) {
        return Ok(());
    }
    tx.set_launch(&vm.resource.key, &launch_text(&document), &app.trust_bundle).await?;
    milestone(&mut tx, vm, "assigned", now_millis()).await?;
    tx.bump_revision(host).await?;
    tx.commit().await?;
    reconcilers.probe.at("after noting the launch document")?;
    Ok(())
}
