//! Publishers, offers, SKUs and versions of the catalogue. These answers are bare arrays.

use std::collections::BTreeSet;

use axum::response::Response;
use serde_json::{Value, json};

use super::{App, Call, reply};
use crate::app::images::{Image, version_key};
use crate::app::refusal::{Kind, Refusal};

/// `GET .../publishers`.
pub async fn publishers(app: App, call: Call) -> Result<Response, Refusal> {
    names(&app, &call, |_| true, |image| &image.publisher)
}

/// `GET .../offers`.
pub async fn offers(app: App, call: Call) -> Result<Response, Refusal> {
    let publisher = call.parameter("publisher").to_owned();
    names(&app, &call, |image| same(&image.publisher, &publisher), |image| &image.offer)
}

/// `GET .../skus`.
pub async fn skus(app: App, call: Call) -> Result<Response, Refusal> {
    let (publisher, offer) = (call.parameter("publisher").to_owned(), call.parameter("offer").to_owned());
    let wanted = |image: &Image| same(&image.publisher, &publisher) && same(&image.offer, &offer);
    names(&app, &call, wanted, |image| &image.sku)
}

/// `GET .../versions`, in the order asked for.
pub async fn versions(app: App, call: Call) -> Result<Response, Refusal> {
    let mut images = of_sku(&app, &call)?;
    images.sort_by_key(|image| version_key(&image.version));
    if call.query("$orderby").is_some_and(|order| order.to_ascii_lowercase().ends_with(" desc")) {
        images.reverse();
    }
    let top = call.query("$top").and_then(|text| text.parse().ok()).unwrap_or(images.len());
    let rows = images.iter().take(top).map(|image| row(&app, &call, &image.version)).collect();
    Ok(reply::ok(&Value::Array(rows)))
}

/// `GET .../versions/{version}`.
pub async fn version(app: App, call: Call) -> Result<Response, Refusal> {
    let wanted = call.parameter("version");
    let images = of_sku(&app, &call)?;
    if !images.iter().any(|image| same(&image.version, wanted)) {
        let message = format!("The image version '{wanted}' was not found.");
        return Err(Refusal::new(Kind::NotFound, "NotFound", message));
    }
    let mut row = row(&app, &call, wanted);
    row["properties"] = json!({
        "osDiskImage": {"operatingSystem": "Linux"},
        "dataDiskImages": [],
        "hyperVGeneration": "V2",
        "features": [{"name": "SecurityType", "value": "ConfidentialVM"}],
    });
    Ok(reply::ok(&row))
}

fn of_sku(app: &App, call: &Call) -> Result<Vec<Image>, Refusal> {
    let mut images = app.catalogue.images()?;
    images.retain(|image| {
        same(&image.publisher, call.parameter("publisher"))
            && same(&image.offer, call.parameter("offer"))
            && same(&image.sku, call.parameter("sku"))
    });
    Ok(images)
}

fn names(
    app: &App,
    call: &Call,
    wanted: impl Fn(&Image) -> bool,
    part: impl Fn(&Image) -> &String,
) -> Result<Response, Refusal> {
    let images = app.catalogue.images()?;
    let names: BTreeSet<&String> =
        images.iter().filter(|image| wanted(image)).map(&part).filter(|name| !name.is_empty()).collect();
    Ok(reply::ok(&Value::Array(names.into_iter().map(|name| row(app, call, name)).collect())))
}

fn row(app: &App, call: &Call, name: &str) -> Value {
    let parts = ["publisher", "offer", "sku"];
    let path: Vec<&str> = parts.iter().filter_map(|part| call.optional(part)).collect();
    json!({
        "location": app.config.region,
        "name": name,
        "id": format!(
            "/Subscriptions/{}/Providers/Microsoft.Compute/Locations/{}/Publishers/{}",
            call.parameter("sub"),
            app.config.region,
            path.into_iter().chain([name]).collect::<Vec<_>>().join("/")
        ),
    })
}

fn same(left: &str, right: &str) -> bool {
    left.eq_ignore_ascii_case(right)
}
