//! Each attestation provider gets its instance at the attestation service, and takes it along when it goes.

use public_api::attestation_policy::ProviderSettings;
use tracing::info;

use super::attestation_service::ProviderTrouble;
use super::{PassError, Reconcilers};
use crate::app::attestation_providers::{service_name, settings};
use crate::app::names::ATTESTATION_PROVIDER;
use crate::app::now_millis;
use crate::store::Resource;

/// What to do for a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make sure that it exists.
    Make(ProviderSettings),
    /// Make sure that it does not, then remove the row.
    Remove(ProviderSettings),
}

/// Plans for one provider; `failed` says whether its newest generation has a failure on record.
pub fn plan(resource: &Resource, failed: bool) -> Option<Step> {
    if resource.deleted {
        return Some(Step::Remove(settings(resource)));
    }
    (!failed && resource.reached < resource.generation).then(|| Step::Make(settings(resource)))
}

/// Runs once over all providers. While the attestation service does not answer, the others are not tried either.
pub async fn run(reconcilers: &Reconcilers) -> Result<(), PassError> {
    let store = &reconcilers.app.store;
    for resource in store.resources_of_kind(ATTESTATION_PROVIDER).await? {
        let failed = store.failure(&resource.incarnation, resource.generation).await?.is_some();
        let done = match plan(&resource, failed) {
            None => Ok(()),
            Some(Step::Make(settings)) => make(reconcilers, &resource, &settings).await?,
            Some(Step::Remove(settings)) => remove(reconcilers, &resource, &settings).await?,
        };
        match done {
            Ok(()) => {}
            Err(ProviderTrouble::Transient(text)) => {
                reconcilers.attestation.tell(&text);
                return Ok(());
            }
            Err(ProviderTrouble::Permanent(failure)) => {
                info!(provider = %resource.id, code = %failure.code, "an attestation provider failed");
                let mut tx = store.begin().await?;
                tx.mark_failed(&resource, resource.generation, &failure, now_millis()).await?;
                tx.commit().await?;
            }
        }
    }
    Ok(())
}

async fn make(
    reconcilers: &Reconcilers,
    resource: &Resource,
    settings: &ProviderSettings,
) -> Result<Result<(), ProviderTrouble>, PassError> {
    reconcilers.probe.at("before making the attestation provider")?;
    if let Err(trouble) = reconcilers.attestation.ensure(&service_name(resource), settings).await {
        return Ok(Err(trouble));
    }
    reconcilers.probe.at("after making the attestation provider")?;
    let mut tx = reconcilers.app.store.begin().await?;
    tx.mark_reached(&resource.key, resource.generation).await?;
    tx.commit().await?;
    reconcilers.probe.at("after noting the attestation provider")?;
    Ok(Ok(()))
}

async fn remove(
    reconcilers: &Reconcilers,
    resource: &Resource,
    settings: &ProviderSettings,
) -> Result<Result<(), ProviderTrouble>, PassError> {
    reconcilers.probe.at("before deleting the attestation provider")?;
    match reconcilers.attestation.remove(&service_name(resource), settings).await {
        Ok(()) => {}
        // It stays on record until it is gone, whatever the reason: its name must not become free before.
        Err(ProviderTrouble::Permanent(failure)) => {
            return Ok(Err(ProviderTrouble::Transient(failure.actual.clone())));
        }
        transient => return Ok(transient),
    }
    reconcilers.probe.at("after deleting the attestation provider")?;
    let mut tx = reconcilers.app.store.begin().await?;
    tx.remove_resource(&resource.key).await?;
    tx.commit().await?;
    reconcilers.probe.at("after removing the attestation provider's row")?;
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::fixtures::vm;

    fn provider(generation: u64, reached: u64, deleted: bool) -> Resource {
        let desired = json!({"tags": {}, "properties": {}});
        Resource {
            id: "ID".into(),
            incarnation: "I".into(),
            desired,
            generation,
            reached,
            deleted,
            ..vm("P", 1, 1).resource
        }
    }

    #[test]
    fn a_provider_is_made_once_and_removed_until_it_is_gone() {
        let settings = settings(&provider(1, 0, false));
        assert_eq!(settings.resource.as_ref().unwrap().incarnation, "I");
        for (generation, reached, deleted, failed, expected) in [
            (1, 0, false, false, Some(Step::Make(settings.clone()))),
            (1, 1, false, false, None),
            (2, 1, false, false, Some(Step::Make(settings.clone()))),
            (1, 0, false, true, None),
            (2, 1, true, false, Some(Step::Remove(settings.clone()))),
            (2, 0, true, true, Some(Step::Remove(settings.clone()))),
        ] {
            let step = plan(&provider(generation, reached, deleted), failed);
            assert_eq!(step, expected, "{generation} {reached} {deleted} {failed}");
        }
    }
}
