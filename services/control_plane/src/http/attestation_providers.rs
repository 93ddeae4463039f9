//! Attestation providers, and the one at the root that everybody may use.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{App, Call, reply};
use crate::app::attestation_providers as providers;
use crate::app::names::{self, ATTESTATION_PROVIDER};
use crate::app::refusal::Refusal;
use crate::store::Resource;

/// `PUT`.
pub async fn put(app: App, call: Call) -> Result<Response, Refusal> {
    let (view, created) = providers::put(&app, &call.place("provider"), &call.body).await?;
    Ok(reply::written(&view, created))
}

/// `GET`.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::ok(&providers::get(&app, &call.place("provider")).await?))
}

/// `PATCH`.
pub async fn patch(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::ok(&providers::patch(&app, &call.place("provider"), &call.body).await?))
}

/// `DELETE`: 200 if it is gone, 202 if that goes on, 204 if it was not there.
pub async fn delete(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::empty(match providers::delete(&app, &call.place("provider")).await? {
        Some(true) => StatusCode::OK,
        Some(false) => StatusCode::ACCEPTED,
        None => StatusCode::NO_CONTENT,
    }))
}

/// List of a group.
pub async fn list_group(app: App, call: Call) -> Result<Response, Refusal> {
    let key = names::group_key(call.parameter("sub"), call.parameter("group"));
    if app.store.resource(&key).await?.is_none() {
        return Err(Refusal::no_group(call.parameter("group")));
    }
    let found = app.store.resources_in(&key).await?;
    list(&app, found.into_iter().filter(|resource| resource.kind == ATTESTATION_PROVIDER).collect()).await
}

/// List of a subscription.
pub async fn list_all(app: App, call: Call) -> Result<Response, Refusal> {
    let subscription = call.parameter("sub").to_ascii_lowercase();
    let found = app.store.resources_of(ATTESTATION_PROVIDER, &subscription).await?;
    list(&app, found).await
}

async fn list(app: &App, found: Vec<Resource>) -> Result<Response, Refusal> {
    let mut shown: Vec<Value> = Vec::with_capacity(found.len());
    for resource in &found {
        shown.push(providers::shown(app, resource).await?);
    }
    Ok(reply::list(shown))
}

/// `GET .../defaultProviders`: the one of the one region.
pub async fn list_default(app: App, _call: Call) -> Result<Response, Refusal> {
    Ok(reply::list(vec![providers::default_provider(&app)]))
}

/// `GET .../locations/{location}/defaultProvider`.
pub async fn default_of_location(app: App, call: Call) -> Result<Response, Refusal> {
    names::check_location(providers::TYPE, Some(call.parameter("location")), &app.config.region)?;
    Ok(reply::ok(&providers::default_provider(&app)))
}

/// `GET /providers/Microsoft.Attestation/operations`.
pub async fn operations(_app: App, _call: Call) -> Result<Response, Refusal> {
    let operation = |verb: &str, what: &str| {
        json!({
            "name": format!("{}/attestation/{verb}", providers::TYPE),
            "display": {
                "provider": "Microsoft.Attestation",
                "resource": "Attestation provider",
                "operation": what,
                "description": what,
            },
        })
    };
    Ok(reply::list(vec![
        operation("read", "Read an attestation provider and its policies"),
        operation("write", "Create an attestation provider and change its policies"),
        operation("delete", "Delete an attestation provider"),
    ]))
}
