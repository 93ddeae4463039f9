//! `Microsoft.Compute/images`.

use axum::response::Response;

use super::{App, Call, reply};
use crate::app::image_resources as images;
use crate::app::names::IMAGE;
use crate::app::refusal::Refusal;

/// `PUT`.
pub async fn put(app: App, call: Call) -> Result<Response, Refusal> {
    let (view, created) = images::put(&app, &call.place("image"), &call.body).await?;
    Ok(reply::written(&view, created))
}

/// `GET`.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::ok(&images::get(&app, &call.place("image")).await?))
}

/// `DELETE`: the name only; the catalogue keeps the image.
pub async fn delete(app: App, call: Call) -> Result<Response, Refusal> {
    let mut tx = app.store.begin().await?;
    let found = tx.resource(&call.place("image").key(IMAGE)).await?;
    if let Some(image) = &found {
        tx.remove_resource(&image.key).await?;
        tx.commit().await?;
    }
    Ok(reply::removed(found.is_some()))
}

/// List of a group.
pub async fn list_group(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::list(images::list(&app, call.parameter("sub"), call.parameter("group")).await?))
}

/// List of a subscription: names that were given. The catalogue's own names have no group here.
pub async fn list_all(app: App, call: Call) -> Result<Response, Refusal> {
    let stored = app.store.resources_of(IMAGE, &call.parameter("sub").to_ascii_lowercase()).await?;
    let views = stored.iter().map(|image| images::view_stored(&app, image)).collect::<Result<_, _>>()?;
    Ok(reply::list(views))
}
