//! What shall go away goes: first from the host, then its key, then its rows; a group after all that is in it.

use super::key_service::KeyTrouble;
use super::{PassError, Reconcilers};
use crate::app::names::{GROUP, SERVED_ELSEWHERE};
use crate::app::vm::platform_key_name;
use crate::store::VmRow;

/// What to do for a VM that shall go away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its host has not confirmed yet.
    AwaitHost(String),
    /// Delete the platform key, if it has one, then the rows.
    Remove {
        /// Name of the platform key. It may exist without being on record.
        platform_key: Option<String>,
    },
}

/// Plans for one VM.
pub fn plan(vm: &VmRow) -> Option<Step> {
    if !vm.resource.deleted {
        return None;
    }
    if !vm.absent {
        let host = vm.host.as_deref().unwrap_or("?");
        return Some(Step::AwaitHost(format!("waiting for host {host} to remove the VM and its disk")));
    }
    let had_one = vm.facts.tenant_key.is_none() || vm.facts.platform_key;
    let platform_key = had_one.then(|| platform_key_name(&vm.vm_id));
    Some(Step::Remove { platform_key })
}

/// Runs once over all VMs and groups.
pub async fn run(reconcilers: &Reconcilers) -> Result<(), PassError> {
    for vm in reconcilers.app.store.vms().await? {
        match plan(&vm) {
            None => {}
            Some(Step::AwaitHost(reason)) => reconcilers.wait(&vm, &reason).await?,
            Some(Step::Remove { platform_key }) => remove(reconcilers, &vm, platform_key.as_deref()).await?,
        }
    }
    remove_groups(reconcilers).await
}

async fn remove(reconcilers: &Reconcilers, vm: &VmRow, platform_key: Option<&str>) -> Result<(), PassError> {
    if let Some(name) = platform_key {
        reconcilers.probe.at("before deleting the platform key")?;
        match reconcilers.keys.remove(name).await {
            Ok(()) => {}
            Err(KeyTrouble::Transient(text)) => {
                return reconcilers.wait(vm, &format!("waiting for the key service: {text}")).await;
            }
            Err(KeyTrouble::Permanent(failure)) => {
                let text = format!("the key service does not delete {name}: {}", failure.actual);
                return reconcilers.wait(vm, &text).await;
            }
        }
    }
    reconcilers.probe.at("after deleting the platform key")?;
    let mut tx = reconcilers.app.store.begin().await?;
    for id in interfaces_to_delete(vm) {
        tx.remove_resource(&id).await?;
    }
    tx.remove_resource(&vm.facts.disk_id.to_ascii_lowercase()).await?;
    tx.remove_resource(&vm.resource.key).await?;
    tx.commit().await?;
    reconcilers.probe.at("after removing the rows")?;
    Ok(())
}

fn interfaces_to_delete(vm: &VmRow) -> Vec<String> {
    let interfaces = vm.desired.properties["networkProfile"]["networkInterfaces"].as_array();
    let marked = |nic: &&serde_json::Value| nic["properties"]["deleteOption"] == "Delete";
    let ids = interfaces.into_iter().flatten().filter(marked).filter_map(|nic| nic["id"].as_str());
    ids.map(str::to_ascii_lowercase).collect()
}

async fn remove_groups(reconcilers: &Reconcilers) -> Result<(), PassError> {
    for group in reconcilers.app.store.groups_to_delete(GROUP).await? {
        let mut tx = reconcilers.app.store.begin().await?;
        if tx.vms().await?.iter().any(|vm| vm.resource.group_key == group.key) {
            continue;
        }
        let resources = tx.resources_in(&group.key).await?;
        // What is at another service goes first.
        if resources.iter().any(|resource| SERVED_ELSEWHERE.contains(&resource.kind.as_str())) {
            continue;
        }
        for resource in resources {
            tx.remove_resource(&resource.key).await?;
        }
        tx.remove_resource(&group.key).await?;
        tx.commit().await?;
        reconcilers.probe.at("after removing the group")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::vm;

    #[test]
    fn a_vm_goes_only_when_it_shall_and_its_host_has_let_go() {
        let mut vm = vm("A", 1, 1);
        vm.host = Some("host-1".into());
        assert_eq!(plan(&vm), None);
        vm.resource.deleted = true;
        let text = "waiting for host host-1 to remove the VM and its disk";
        assert_eq!(plan(&vm), Some(Step::AwaitHost(text.into())));
        vm.absent = true;
        assert_eq!(plan(&vm), Some(Step::Remove { platform_key: Some("vm-a".into()) }));
    }

    #[test]
    fn a_tenants_key_is_not_ours_to_delete() {
        let mut vm = vm("A", 1, 1);
        vm.resource.deleted = true;
        vm.absent = true;
        vm.facts.tenant_key = Some("https://keys.test/keys/mine/1".into());
        assert_eq!(plan(&vm), Some(Step::Remove { platform_key: None }));
        // It was under a key of ours before the tenant took it under its own.
        vm.facts.platform_key = true;
        assert_eq!(plan(&vm), Some(Step::Remove { platform_key: Some("vm-a".into()) }));
    }
}
