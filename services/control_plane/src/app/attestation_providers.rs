//! Attestation providers: a tenant's own instance of the attestation service, with policies, signers and keys of its own.
//!
//! The resource is the wish; a reconciler makes the provider at the attestation service and removes it with its resource. Its
//! name is part of the provider's address there, so it is unique in the whole installation, as a DNS name is in Azure. What
//! decides about evidence is fixed when the provider is made, or changed at the provider's own address by whoever has a
//! role over the resource.

use std::time::Duration;

use public_api::attestation_policy::{
    ProviderResource, ProviderSettings, TokenAlgorithm, TpmAttestationAuthentication, TrustModel,
};
use serde_json::{Value, json};

use super::body::{self, attestation as shapes};
use super::groups::{in_group, open_group};
use super::names::{self, ATTESTATION_PROVIDER, Place};
use super::operations::{failure_message, failure_refusal};
use super::provider_properties::{TPM_DEFAULT, Wanted};
use super::refusal::{Kind, Refusal};
use super::{ControlPlane, now_millis, validation, vms};
use crate::store::{FailureRow, NewResource, Resource, Tx};

/// The type as Resource Manager writes it.
pub const TYPE: &str = "Microsoft.Attestation/attestationProviders";

/// The name of the provider at the root of the attestation service.
const DEFAULT: &str = "default";

/// Most providers of one subscription: what one tenant can take of the service's places is bounded.
const MAX_OF_SUBSCRIPTION: usize = 100;

/// How long `PUT` and `DELETE` wait for the reconciler: Azure's clients do not poll here, they use the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Creates a provider, or changes its labels; says whether it is new.
pub async fn put(app: &ControlPlane, place: &Place, text: &[u8]) -> Result<(Value, bool), Refusal> {
    check_name(&place.name)?;
    let shaped = body::parse(text, &shapes::ATTESTATION_PROVIDER)?;
    names::check_location(TYPE, shaped["location"].as_str(), &app.config.region)?;
    let given = shaped.get("properties").ok_or_else(|| validation::missing("properties", "properties"))?;
    let wanted = Wanted::read(given)?;
    let tags = super::groups::tags_of(&shaped)?;
    let mut tx = app.store.begin().await?;
    let group = open_group(&mut tx, &place.subscription, &place.group).await?;
    let existing = tx.resource(&place.key(ATTESTATION_PROVIDER)).await?;
    match &existing {
        Some(resource) => change(&mut tx, resource, &wanted, Some(&json!(tags))).await?,
        None => {
            check_free(&mut tx, &group.subscription, &place.name).await?;
            let new = NewResource {
                reached: 0,
                ..in_group(
                    app,
                    &group,
                    (TYPE, ATTESTATION_PROVIDER),
                    &place.name,
                    json!({"tags": tags, "properties": wanted.stored()}),
                )
            };
            tx.insert_resource(&new, now_millis()).await?;
        }
    }
    tx.commit().await?;
    Ok((shown_when_settled(app, place).await?, existing.is_none()))
}

/// Changes labels. The other properties can be repeated, not changed.
pub async fn patch(app: &ControlPlane, place: &Place, text: &[u8]) -> Result<Value, Refusal> {
    let shaped = body::parse(text, &shapes::ATTESTATION_PROVIDER_UPDATE)?;
    let wanted = Wanted::read(shaped.get("properties").unwrap_or(&json!({})))?;
    let mut tx = app.store.begin().await?;
    let resource = tx.resource(&place.key(ATTESTATION_PROVIDER)).await?;
    let resource = resource.ok_or_else(|| Refusal::not_found(TYPE, &place.name, &place.group))?;
    change(&mut tx, &resource, &wanted, shaped.get("tags")).await?;
    tx.commit().await?;
    shown_when_settled(app, place).await
}

async fn change(
    tx: &mut Tx,
    resource: &Resource,
    wanted: &Wanted,
    tags: Option<&Value>,
) -> Result<(), Refusal> {
    vms::refuse_if_deleting(resource)?;
    wanted.check_unchanged(&resource.desired["properties"])?;
    let mut desired = resource.desired.clone();
    if let Some(tags) = tags {
        desired["tags"] = tags.clone();
    }
    tx.change_resource(resource, &desired, true, now_millis()).await?;
    Ok(())
}

/// Says that a provider shall go away. Nothing if there is none, else whether it is gone already.
pub async fn delete(app: &ControlPlane, place: &Place) -> Result<Option<bool>, Refusal> {
    let key = place.key(ATTESTATION_PROVIDER);
    let mut tx = app.store.begin().await?;
    let Some(resource) = tx.resource(&key).await? else { return Ok(None) };
    if !resource.deleted {
        tx.mark_deleted(&resource, now_millis()).await?;
    }
    tx.commit().await?;
    let left = settled(app, &key, |now, _| now.incarnation != resource.incarnation).await?;
    Ok(Some(left.is_none_or(|(left, _)| left.incarnation != resource.incarnation)))
}

/// A provider.
pub async fn get(app: &ControlPlane, place: &Place) -> Result<Value, Refusal> {
    let found = app.store.resource(&place.key(ATTESTATION_PROVIDER)).await?;
    let found = found.ok_or_else(|| Refusal::not_found(TYPE, &place.name, &place.group))?;
    shown(app, &found).await
}

/// A provider as it is shown.
pub async fn shown(app: &ControlPlane, resource: &Resource) -> Result<Value, Refusal> {
    let failure = app.store.failure(&resource.incarnation, resource.generation).await?;
    Ok(view(&app.config.attestation_url, resource, failure.as_ref()))
}

/// The provider at the root of the attestation service, which judges the platform's own VMs.
pub fn default_provider(app: &ControlPlane) -> Value {
    json!({
        "id": format!("/providers/{TYPE}/{DEFAULT}"),
        "name": DEFAULT,
        "type": TYPE,
        "location": app.config.region,
        "properties": {
            "trustModel": TrustModel::Aad,
            "status": "Ready",
            "attestUri": app.config.attestation_url,
            "publicNetworkAccess": "Enabled",
            "tpmAttestationAuthentication": TpmAttestationAuthentication::Disabled,
        },
    })
}

/// The provider's name at the attestation service.
pub fn service_name(resource: &Resource) -> String {
    resource.name.to_ascii_lowercase()
}

/// What the attestation service is told.
pub fn settings(resource: &Resource) -> ProviderSettings {
    let wanted = Wanted::of_stored(&resource.desired["properties"]);
    let certificates = wanted.certificates.unwrap_or_default();
    let trust_model = if certificates.is_empty() { TrustModel::Aad } else { TrustModel::Isolated };
    ProviderSettings {
        trust_model,
        policy_signing_certificates: certificates,
        token_algorithm: TokenAlgorithm::default(),
        tpm_attestation_authentication: wanted.tpm.unwrap_or(TPM_DEFAULT),
        resource: Some(ProviderResource {
            id: resource.id.clone(),
            incarnation: resource.incarnation.clone(),
        }),
    }
}

fn view(attestation_url: &str, resource: &Resource, failure: Option<&FailureRow>) -> Value {
    let settings = settings(resource);
    let mut properties = json!({
        "trustModel": settings.trust_model,
        "status": status(resource, failure.is_some()),
        "attestUri": format!("{attestation_url}/providers/{}", service_name(resource)),
        "publicNetworkAccess": "Enabled",
        "tpmAttestationAuthentication": settings.tpm_attestation_authentication,
    });
    if let Some(failure) = failure {
        properties["casemate"] = json!({"detail": failure_message(&failure.failure)});
    }
    json!({
        "id": resource.id,
        "name": resource.name,
        "type": TYPE,
        "location": resource.location,
        "tags": resource.desired["tags"],
        "properties": properties,
    })
}

/// Derived from the counters, like a `provisioningState`.
fn status(resource: &Resource, failed: bool) -> &'static str {
    match (resource.deleted, resource.reached >= resource.generation, failed) {
        (false, true, _) => "Ready",
        (false, false, true) => "Error",
        _ => "NotReady",
    }
}

async fn shown_when_settled(app: &ControlPlane, place: &Place) -> Result<Value, Refusal> {
    let done = |now: &Resource, failed: bool| failed || now.reached >= now.generation;
    let settled = settled(app, &place.key(ATTESTATION_PROVIDER), done).await?;
    let (resource, failure) = settled.ok_or_else(|| Refusal::not_found(TYPE, &place.name, &place.group))?;
    match &failure {
        Some(failure) if resource.reached < resource.generation => Err(failure_refusal(&failure.failure)),
        _ => Ok(view(&app.config.attestation_url, &resource, failure.as_ref())),
    }
}

/// The resource once it is gone or `done` says so of it and its failure, or as it is when patience ends.
pub(super) async fn settled(
    app: &ControlPlane,
    key: &str,
    done: impl Fn(&Resource, bool) -> bool,
) -> Result<Option<(Resource, Option<FailureRow>)>, Refusal> {
    let mut changes = app.store.changes();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        changes.mark_unchanged();
        let Some(resource) = app.store.resource(key).await? else { return Ok(None) };
        let failure = app.store.failure(&resource.incarnation, resource.generation).await?;
        let is_done = done(&resource, failure.is_some());
        if is_done || tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            return Ok(Some((resource, failure)));
        }
    }
}

/// Azure's pattern is `^[a-zA-Z0-9-]{3,24}$`; here a letter comes first and no hyphen last, as in a host's name.
fn check_name(name: &str) -> Result<(), Refusal> {
    let fits = (3..=24).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !name.eq_ignore_ascii_case(DEFAULT);
    if fits {
        return Ok(());
    }
    let message = format!(
        "'{name}' is not a valid name for {TYPE}: it must have 3 to 24 letters, digits or '-', begin with a letter, end with \
         a letter or digit, and not be '{DEFAULT}'."
    );
    Err(Refusal::new(Kind::BadRequest, "InvalidResourceName", message).at("name"))
}

/// A name is free if no subscription's provider has it; whose it is is not told.
async fn check_free(tx: &mut Tx, subscription: &str, name: &str) -> Result<(), Refusal> {
    if tx.is_name_taken(ATTESTATION_PROVIDER, name).await? {
        let message = format!(
            "The attestation provider name '{name}' is already in use. It is part of the provider's address and unique in \
             the whole installation; choose another one."
        );
        return Err(Refusal::conflict("NameNotAvailable", message).at("name"));
    }
    let subscription = subscription.to_ascii_lowercase();
    if tx.resources_of(ATTESTATION_PROVIDER, &subscription).await?.len() >= MAX_OF_SUBSCRIPTION {
        let message = format!(
            "The subscription has {MAX_OF_SUBSCRIPTION} attestation providers, and may not have more; delete one first."
        );
        return Err(Refusal::conflict("QuotaExceeded", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_hosts() {
        for name in ["abc", "Team-A", "a23456789012345678901234"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in [
            "ab",
            "a234567890123456789012345",
            "1ab",
            "-ab",
            "ab-",
            "a_b",
            "a.b",
            "äbc",
            "default",
            "Default",
        ] {
            assert_eq!(check_name(name).unwrap_err().code, "InvalidResourceName", "{name}");
        }
    }
}
