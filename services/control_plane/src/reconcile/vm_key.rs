//! Each VM gets its key-encryption key: the tenant's by name, or a platform key made for it.

use public_api::keys::KeyCreateParameters;

use super::key_service::KeyTrouble;
use super::{PassError, Reconcilers};
use crate::app::vm::platform_key_name;
use crate::app::{launch, now_millis, observation};
use crate::store::VmRow;

/// What to do for a VM without a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The disk encryption set named it.
    UseTenantKey(String),
    /// Make sure that it exists.
    EnsurePlatformKey {
        /// Its name.
        name: String,
        /// How it is made.
        parameters: Box<KeyCreateParameters>,
    },
}

/// Plans for one VM.
pub fn plan(vm: &VmRow, attestation_url: &str, development: bool) -> Option<Step> {
    if vm.key_id.is_some() || vm.resource.deleted || vm.failure.is_some() {
        return None;
    }
    if let Some(url) = &vm.facts.tenant_key {
        return Some(Step::UseTenantKey(url.clone()));
    }
    let parameters = Box::new(platform_key(vm, attestation_url, development));
    Some(Step::EnsurePlatformKey { name: platform_key_name(&vm.vm_id), parameters })
}

/// How a VM's platform key is made.
pub fn platform_key(vm: &VmRow, attestation_url: &str, development: bool) -> KeyCreateParameters {
    let policy =
        launch::release_policy(&vm.vm_id, &vm.facts, &vm.provisioning_data, attestation_url, development);
    launch::key_parameters(&policy, &vm.vm_id)
}

/// Runs once over all VMs.
pub async fn run(reconcilers: &Reconcilers) -> Result<(), PassError> {
    let config = &reconcilers.app.config;
    for vm in reconcilers.app.store.vms().await? {
        if let Some(step) = plan(&vm, &config.attestation_url, config.allow_development_roots) {
            execute(reconcilers, &vm, step).await?;
        }
    }
    Ok(())
}

async fn execute(reconcilers: &Reconcilers, vm: &VmRow, step: Step) -> Result<(), PassError> {
    let key_id = match step {
        Step::UseTenantKey(url) => url,
        Step::EnsurePlatformKey { name, parameters } => {
            reconcilers.probe.at("before the platform key")?;
            match reconcilers.keys.ensure(&name, &parameters).await {
                Ok(key_id) => key_id,
                Err(KeyTrouble::Permanent(failure)) => return reconcilers.fail(vm, &failure).await,
                Err(KeyTrouble::Transient(text)) => {
                    return reconcilers.wait(vm, &format!("waiting for the key service: {text}")).await;
                }
            }
        }
    };
    reconcilers.probe.at("after the platform key")?;
    let now = now_millis();
    let mut tx = reconcilers.app.store.begin().await?;
    tx.set_key(&vm.resource.key, &key_id).await?;
    tx.set_waiting(&vm.resource.key, "").await?;
    observation::milestone(&mut tx, vm, "key", now).await?;
    tx.commit().await?;
    reconcilers.probe.at("after noting the key")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::vm;
    use crate::store::FailureRow;

    fn step(vm: &VmRow, development: bool) -> Option<Step> {
        plan(vm, "https://attest.test", development)
    }

    #[test]
    fn a_vm_without_a_key_gets_the_tenants_or_its_own() {
        let mut wanted = vm("A", 1, 1);
        let Some(Step::EnsurePlatformKey { name, parameters }) = step(&wanted, true) else {
            panic!("no key")
        };
        assert_eq!(
            (name.as_str(), parameters.kty.as_str(), parameters.key_size),
            ("vm-a", "RSA-HSM", Some(3072))
        );
        assert!(parameters.release_policy.unwrap().immutable);
        wanted.facts.tenant_key = Some("https://keys.test/keys/mine/1".into());
        assert_eq!(step(&wanted, true), Some(Step::UseTenantKey("https://keys.test/keys/mine/1".into())));
    }

    #[test]
    fn the_policy_trusts_one_kind_of_root_only() {
        for (development, root) in [(true, "development"), (false, "amd")] {
            let Some(Step::EnsurePlatformKey { parameters, .. }) = step(&vm("A", 1, 1), development) else {
                panic!("no key")
            };
            let text = String::from_utf8(parameters.release_policy.unwrap().data).unwrap();
            let condition = format!(r#"{{"claim":"x-casemate-trust-root","equals":"{root}"}}"#);
            assert!(text.contains(&condition), "{text}");
        }
    }

    #[test]
    fn a_recovery_key_is_bound_by_the_policy() {
        let mut wanted = vm("A", 1, 1);
        wanted.facts.recovery_key = Some("PEM".into());
        let Some(Step::EnsurePlatformKey { parameters, .. }) = step(&wanted, true) else { panic!("no key") };
        let text = String::from_utf8(parameters.release_policy.unwrap().data).unwrap();
        assert!(text.contains(r#"{"claim":"x-ms-inittime.recoveryKey","equals":"PEM"}"#), "{text}");
    }

    #[test]
    fn a_vm_that_has_a_key_or_goes_or_failed_gets_none() {
        let mut has = vm("A", 1, 1);
        has.key_id = Some("k".into());
        let mut goes = vm("A", 1, 1);
        goes.resource.deleted = true;
        let mut failed = vm("A", 1, 1);
        let failure = crate::reconcile::key_service::refused("k", "no");
        failed.failure = Some(FailureRow { generation: 1, failure, at: 0 });
        for vm in [has, goes, failed] {
            assert_eq!(step(&vm, true), None);
        }
    }
}
