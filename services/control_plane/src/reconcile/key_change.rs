//! A VM that shall be under another key than its launch document names gets a document that names that one.
//!
//! The host takes it up: the running VM moves, a stopped one moves at its next start. Whether it may is not for anybody here
//! to say: the key that the VM is under must name the new one. For a platform key this control plane is the owner, and does.

use super::key_service::KeyTrouble;
use super::{PassError, Reconcilers, vm_key};
use crate::app::launch;
use crate::app::vm::{key_in_url, platform_key_name};
use crate::store::VmRow;

/// What a VM shall be under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The tenant's key with this URL.
    Tenant(String),
    /// Its platform key.
    Platform,
}

/// Plans for one VM: nothing if its launch document names the wanted key.
pub fn plan(vm: &VmRow) -> Option<Wanted> {
    let (Some(key_id), Some(_)) = (&vm.key_id, &vm.launch_document) else { return None };
    if vm.resource.deleted {
        return None;
    }
    match &vm.facts.tenant_key {
        Some(url) => (url != key_id).then(|| Wanted::Tenant(url.clone())),
        None => (!is_platform_key(vm, key_id)).then_some(Wanted::Platform),
    }
}

fn is_platform_key(vm: &VmRow, key_id: &str) -> bool {
    key_in_url(key_id).is_some_and(|(name, _)| name == platform_key_name(&vm.vm_id))
}

/// Runs once over all VMs.
pub async fn run(reconcilers: &Reconcilers) -> Result<(), PassError> {
    for vm in reconcilers.app.store.vms().await? {
        if let Some(wanted) = plan(&vm) {
            match prepare(reconcilers, &vm, &wanted).await {
                Ok(key_id) => write(reconcilers, &vm, &key_id).await?,
                Err(Trouble::Pass(error)) => return Err(error),
                Err(Trouble::Keys(text)) => reconcilers.wait(&vm, &text).await?,
            }
        }
    }
    Ok(())
}

enum Trouble {
    Pass(PassError),
    Keys(String),
}

impl From<super::Interrupted> for Trouble {
    fn from(interrupted: super::Interrupted) -> Self {
        Self::Pass(interrupted.into())
    }
}

impl From<KeyTrouble> for Trouble {
    fn from(trouble: KeyTrouble) -> Self {
        Self::Keys(match trouble {
            KeyTrouble::Transient(text) => format!("waiting for the key service to change the key: {text}"),
            KeyTrouble::Permanent(failure) => {
                format!("the key cannot be changed: {}: {}", failure.code, failure.actual)
            }
        })
    }
}

/// The wanted key's URL, after the key that the VM may be under was told of it as far as it is ours.
async fn prepare(reconcilers: &Reconcilers, vm: &VmRow, wanted: &Wanted) -> Result<String, Trouble> {
    let config = &reconcilers.app.config;
    let key_id = match wanted {
        Wanted::Tenant(url) => url.clone(),
        Wanted::Platform => {
            let key = vm_key::platform_key(vm, &config.attestation_url, config.allow_development_roots);
            reconcilers.keys.ensure(&platform_key_name(&vm.vm_id), &key).await?
        }
    };
    reconcilers.probe.at("before letting another key follow")?;
    for present in present_keys(vm).into_iter().filter(|present| is_platform_key(vm, present)) {
        if present != key_id {
            reconcilers.keys.let_follow(&present, &key_id).await?;
        }
    }
    reconcilers.probe.at("after letting another key follow")?;
    Ok(key_id)
}

/// The keys that the guest state may be under now: what its host said, else what the documents of before named.
fn present_keys(vm: &VmRow) -> Vec<String> {
    let document = vm.launch_document.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let first = document.and_then(|document: internal_api::launch::LaunchDocument| document.first_key_id);
    let told = vm.state.as_ref().and_then(|state| state.key.as_ref()).map(|key| key.in_use.clone());
    let mut keys: Vec<String> = told.into_iter().chain(vm.key_id.clone()).chain(first).collect();
    keys.sort();
    keys.dedup();
    keys
}

async fn write(reconcilers: &Reconcilers, vm: &VmRow, key_id: &str) -> Result<(), PassError> {
    let text = vm.launch_document.as_deref().and_then(|text| launch::with_key(text, key_id));
    let Some(document) = text else {
        return reconcilers.wait(vm, "the launch document on record cannot be read").await;
    };
    let mut tx = reconcilers.app.store.begin().await?;
    if tx.replace_key(vm, key_id, &document).await? {
        tx.set_waiting(&vm.resource.key, "").await?;
        if let Some(host) = &vm.host {
            tx.bump_revision(host).await?;
        }
        tx.commit().await?;
        reconcilers.probe.at("after noting another key")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::vm;

    const TENANT: &str = "https://keys.test/keys/mine/1";
    const PLATFORM: &str = "https://keys.test/keys/vm-a/7";

    fn assigned(key_id: &str, tenant_key: Option<&str>) -> VmRow {
        let mut vm = vm("A", 1, 1);
        vm.key_id = Some(key_id.to_owned());
        vm.launch_document = Some("{}".to_owned());
        vm.facts.tenant_key = tenant_key.map(str::to_owned);
        vm
    }

    #[test]
    fn a_document_that_names_another_key_than_the_wanted_one_is_replaced() {
        let newer = "https://keys.test/keys/mine/2";
        for (present, tenant_key, expected) in [
            (TENANT, Some(TENANT), None),
            (TENANT, Some(newer), Some(Wanted::Tenant(newer.to_owned()))),
            (PLATFORM, Some(TENANT), Some(Wanted::Tenant(TENANT.to_owned()))),
            (TENANT, None, Some(Wanted::Platform)),
            (PLATFORM, None, None),
        ] {
            assert_eq!(plan(&assigned(present, tenant_key)), expected, "{present} to {tenant_key:?}");
        }
    }

    #[test]
    fn a_vm_that_goes_or_was_never_assigned_keeps_what_it_has() {
        let mut goes = assigned(PLATFORM, Some(TENANT));
        goes.resource.deleted = true;
        let mut new = assigned(PLATFORM, Some(TENANT));
        new.launch_document = None;
        assert_eq!((plan(&goes), plan(&new)), (None, None));
    }

    #[test]
    fn a_failed_vm_gets_its_new_key_all_the_same() {
        let mut failed = assigned(TENANT, Some("https://keys.test/keys/mine/2"));
        let failure = crate::reconcile::key_service::refused("k", "disabled");
        failed.failure = Some(crate::store::FailureRow { generation: 1, failure, at: 0 });
        assert!(plan(&failed).is_some());
    }
}
