//! `Microsoft.Compute/images`: names for images of the catalogue.
//!
//! A tenant may give a catalogue image a name of its own: `properties.storageProfile.osDisk.blobUri` is then
//! `sha256:{digest of the manifest}`. Without that, each image of the catalogue answers to its own name in every group.

use serde_json::{Value, json};

use super::body::{self, compute};
use super::groups::{in_group, open_group};
use super::images::Image;
use super::names::{self, IMAGE, Place};
use super::refusal::Refusal;
use super::{ControlPlane, now_millis, validation};
use crate::store::{Resource, Tx};

const TYPE: &str = "Microsoft.Compute/images";

/// The image that an id means, as seen from a subscription.
pub async fn resolve(
    app: &ControlPlane,
    tx: &mut Tx,
    subscription: &str,
    id: &str,
) -> Result<Option<Image>, Refusal> {
    if let Some(stored) = tx.referenced(IMAGE, subscription, id).await? {
        return app.catalogue.by_digest(digest_of(&stored));
    }
    let parsed: Option<public_api::resource_id::ResourceId> = id.parse().ok();
    let kind = parsed.as_ref().and_then(|id| id.resource_type()).unwrap_or_default();
    match parsed.as_ref().and_then(|id| id.name()) {
        Some(name) if kind.eq_ignore_ascii_case(TYPE) => app.catalogue.by_name(name),
        _ => Ok(None),
    }
}

fn digest_of(stored: &Resource) -> &str {
    stored.desired["digest"].as_str().unwrap_or_default()
}

/// Names an image; says whether the name is new.
pub async fn put(app: &ControlPlane, place: &Place, text: &[u8]) -> Result<(Value, bool), Refusal> {
    names::check_name(TYPE, &place.name, 80)?;
    let shaped = body::parse(text, &compute::IMAGE)?;
    names::check_location(TYPE, shaped["location"].as_str(), &app.config.region)?;
    let target = "properties.storageProfile.osDisk.blobUri";
    let disk = &shaped["properties"]["storageProfile"]["osDisk"];
    let uri = disk["blobUri"].as_str().ok_or_else(|| validation::missing(target, "osDisk.blobUri"))?;
    let digest = uri.strip_prefix("sha256:").unwrap_or_default().to_ascii_lowercase();
    if app.catalogue.by_digest(&digest)?.is_none() {
        let message = format!(
            "'{uri}' is not 'sha256:' and the digest of a manifest in this installation's image directory."
        );
        return Err(Refusal::parameter(target, message));
    }
    let mut tx = app.store.begin().await?;
    let group = open_group(&mut tx, &place.subscription, &place.group).await?;
    let desired = json!({"tags": super::groups::tags_of(&shaped)?, "digest": digest});
    let existing = tx.resource(&place.key(IMAGE)).await?;
    match &existing {
        Some(image) if digest_of(image) != digest => {
            return Err(validation::unchangeable("storageProfile.osDisk.blobUri"));
        }
        Some(image) => drop(tx.change_resource(image, &desired, true, now_millis()).await?),
        None => {
            let new = in_group(app, &group, (TYPE, IMAGE), &place.name, desired);
            tx.insert_resource(&new, now_millis()).await?;
        }
    }
    let stored = tx.resource(&place.key(IMAGE)).await?.expect("the row was written in this transaction");
    tx.commit().await?;
    Ok((view_stored(app, &stored)?, existing.is_none()))
}

/// An image by its name.
pub async fn get(app: &ControlPlane, place: &Place) -> Result<Value, Refusal> {
    if let Some(stored) = app.store.resource(&place.key(IMAGE)).await? {
        return view_stored(app, &stored);
    }
    let group =
        app.store.resource(&place.group_key()).await?.ok_or_else(|| Refusal::no_group(&place.group))?;
    let image = app.catalogue.by_name(&place.name)?;
    let image = image.ok_or_else(|| Refusal::not_found(TYPE, &place.name, &place.group))?;
    Ok(view(
        app,
        &names::resource_id(&group, TYPE, &image.name),
        &image.name,
        &json!({}),
        Some(&image),
        &image.digest,
    ))
}

/// The images of a group: its own names, and the catalogue's.
pub async fn list(app: &ControlPlane, subscription: &str, group: &str) -> Result<Vec<Value>, Refusal> {
    let key = names::group_key(subscription, group);
    let group = app.store.resource(&key).await?.ok_or_else(|| Refusal::no_group(group))?;
    let stored = app.store.resources_in(&key).await?;
    let mut views = Vec::new();
    for image in stored.iter().filter(|resource| resource.kind == IMAGE) {
        views.push(view_stored(app, image)?);
    }
    for image in app.catalogue.images()? {
        let id = names::resource_id(&group, TYPE, &image.name);
        if !stored.iter().any(|resource| resource.key == id.to_ascii_lowercase()) {
            views.push(view(app, &id, &image.name, &json!({}), Some(&image), &image.digest));
        }
    }
    Ok(views)
}

/// A stored image.
pub fn view_stored(app: &ControlPlane, stored: &Resource) -> Result<Value, Refusal> {
    let digest = digest_of(stored);
    let image = app.catalogue.by_digest(digest)?;
    Ok(view(app, &stored.id, &stored.name, &stored.desired["tags"], image.as_ref(), digest))
}

fn view(
    app: &ControlPlane,
    id: &str,
    name: &str,
    tags: &Value,
    image: Option<&Image>,
    digest: &str,
) -> Value {
    json!({
        "id": id,
        "name": name,
        "type": TYPE,
        "location": app.config.region,
        "tags": tags,
        "properties": {
            "provisioningState": if image.is_some() { "Succeeded" } else { "Failed" },
            "hyperVGeneration": "V2",
            "storageProfile": {
                "osDisk": {
                    "osType": "Linux",
                    "osState": "Generalized",
                    "blobUri": format!("sha256:{digest}"),
                    "diskSizeGB": image.map(|image| image.size_bytes.div_ceil(1 << 30)),
                },
                "dataDisks": [],
            },
        },
    })
}
