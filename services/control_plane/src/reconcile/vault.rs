//! Each vault gets its place at the key service, is told of every change of who may do what, and is deleted there when it goes.

use public_api::vaults::VaultSettings;
use tracing::info;

use super::vault_service::VaultTrouble;
use super::{PassError, Reconcilers};
use crate::app::names::{MANAGED_HSM, ROLE_ASSIGNMENT, VAULT};
use crate::app::vaults::{service_name, settings};
use crate::app::{now_millis, role_assignments};
use crate::store::Resource;

/// What to do for a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make sure that it exists with these settings.
    Make(VaultSettings),
    /// The same of one that was deleted.
    Recover(VaultSettings),
    /// Make sure that it is deleted, then remove the row.
    Remove(VaultSettings),
}

/// Plans for one vault; `assignments` are all of its subscription, `failed` says whether its newest generation has a failure
/// on record.
pub fn plan(vault: &Resource, assignments: &[Resource], failed: bool) -> Option<Step> {
    let settings = || settings(vault, assignments);
    if vault.deleted {
        return Some(Step::Remove(settings()));
    }
    if failed || vault.reached >= vault.generation {
        return None;
    }
    let recover = vault.reached == 0 && vault.desired["recover"] == serde_json::json!(true);
    Some(if recover { Step::Recover(settings()) } else { Step::Make(settings()) })
}

/// Runs once over all vaults. While the key service does not answer, the others are not tried either.
pub async fn run(reconcilers: &Reconcilers) -> Result<(), PassError> {
    let store = &reconcilers.app.store;
    for kind in [VAULT, MANAGED_HSM] {
        for vault in store.resources_of_kind(kind).await? {
            let failed = store.failure(&vault.incarnation, vault.generation).await?.is_some();
            if !vault.deleted && (failed || vault.reached >= vault.generation) {
                continue;
            }
            let assignments = store.resources_of(ROLE_ASSIGNMENT, &vault.subscription).await?;
            let Some(step) = plan(&vault, &assignments, failed) else { continue };
            match execute(reconcilers, &vault, step).await? {
                Ok(()) => {}
                Err(VaultTrouble::Transient(text)) => {
                    reconcilers.vaults.tell(&text);
                    return Ok(());
                }
                Err(VaultTrouble::Permanent(failure)) => {
                    info!(vault = %vault.id, code = %failure.code, "a vault failed");
                    let mut tx = store.begin().await?;
                    tx.mark_failed(&vault, vault.generation, &failure, now_millis()).await?;
                    tx.commit().await?;
                }
            }
        }
    }
    Ok(())
}

async fn execute(
    reconcilers: &Reconcilers,
    vault: &Resource,
    step: Step,
) -> Result<Result<(), VaultTrouble>, PassError> {
    match step {
        Step::Make(settings) => make(reconcilers, vault, &settings).await,
        Step::Recover(mut settings) => {
            reconcilers.probe.at("before recovering the vault")?;
            match reconcilers.vaults.recover(&service_name(vault), &settings).await {
                // What never changes is as it was; the key service refuses what would take something back.
                Ok(view) => {
                    settings.soft_delete_retention_in_days = view.settings.soft_delete_retention_in_days;
                    settings.purge_protection |= view.settings.purge_protection;
                    note_kept(reconcilers, vault, &settings).await?;
                    make(reconcilers, vault, &settings).await
                }
                Err(trouble) => Ok(Err(trouble)),
            }
        }
        Step::Remove(settings) => remove(reconcilers, vault, &settings).await,
    }
}

/// The row shows what the recovered vault has; what somebody changed of it meanwhile stays.
async fn note_kept(
    reconcilers: &Reconcilers,
    vault: &Resource,
    settings: &VaultSettings,
) -> Result<(), PassError> {
    let mut tx = reconcilers.app.store.begin().await?;
    let current = tx.resource(&vault.key).await?;
    let Some(current) = current.filter(|current| current.incarnation == vault.incarnation) else {
        return Ok(());
    };
    let mut desired = current.desired.clone();
    let properties = &mut desired["properties"];
    properties["softDeleteRetentionInDays"] = settings.soft_delete_retention_in_days.into();
    if settings.purge_protection {
        properties["enablePurgeProtection"] = true.into();
    }
    if desired != current.desired {
        tx.set_desired(&vault.key, &desired).await?;
    }
    Ok(tx.commit().await?)
}

async fn make(
    reconcilers: &Reconcilers,
    vault: &Resource,
    settings: &VaultSettings,
) -> Result<Result<(), VaultTrouble>, PassError> {
    reconcilers.probe.at("before making the vault")?;
    if let Err(trouble) = reconcilers.vaults.ensure(&service_name(vault), settings).await {
        return Ok(Err(trouble));
    }
    reconcilers.probe.at("after making the vault")?;
    let mut tx = reconcilers.app.store.begin().await?;
    tx.mark_reached(&vault.key, vault.generation).await?;
    tx.commit().await?;
    reconcilers.probe.at("after noting the vault")?;
    Ok(Ok(()))
}

async fn remove(
    reconcilers: &Reconcilers,
    vault: &Resource,
    settings: &VaultSettings,
) -> Result<Result<(), VaultTrouble>, PassError> {
    reconcilers.probe.at("before deleting the vault")?;
    match reconcilers.vaults.remove(&service_name(vault), settings).await {
        Ok(()) => {}
        // It stays on record until it is gone, whatever the reason: its name must not become free before.
        // The others go on meanwhile.
        Err(VaultTrouble::Permanent(failure)) => {
            reconcilers.vaults.tell(&failure.actual);
            return Ok(Ok(()));
        }
        transient => return Ok(transient),
    }
    reconcilers.probe.at("after deleting the vault")?;
    let mut tx = reconcilers.app.store.begin().await?;
    role_assignments::remove_below(&mut tx, vault).await?;
    tx.remove_resource(&vault.key).await?;
    tx.commit().await?;
    reconcilers.probe.at("after removing the vault's row")?;
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::fixtures::vm;

    fn vault(generation: u64, reached: u64, deleted: bool, recover: bool) -> Resource {
        let desired = json!({
            "tags": {}, "recover": recover,
            "properties": {"tenantId": "T", "sku": {"name": "standard"}, "softDeleteRetentionInDays": 90,
                           "enableRbacAuthorization": true, "accessPolicies": []},
        });
        Resource {
            key: "/subscriptions/s/resourcegroups/rg/providers/microsoft.keyvault/vaults/one".into(),
            id: "ID".into(),
            kind: VAULT.into(),
            incarnation: "I".into(),
            desired,
            generation,
            reached,
            deleted,
            ..vm("V", 1, 1).resource
        }
    }

    #[test]
    fn a_vault_is_made_or_recovered_once_told_of_changes_and_removed_until_it_is_gone() {
        let told = settings(&vault(1, 0, false, false), &[]);
        for (generation, reached, deleted, recover, failed, expected) in [
            (1, 0, false, false, false, Some(Step::Make(told.clone()))),
            (1, 0, false, true, false, Some(Step::Recover(told.clone()))),
            (2, 1, false, true, false, Some(Step::Make(told.clone()))),
            (1, 1, false, false, false, None),
            (1, 0, false, false, true, None),
            (2, 0, true, true, true, Some(Step::Remove(told.clone()))),
        ] {
            let step = plan(&vault(generation, reached, deleted, recover), &[], failed);
            assert_eq!(step, expected, "{generation} {reached} {deleted} {recover} {failed}");
        }
    }
}
