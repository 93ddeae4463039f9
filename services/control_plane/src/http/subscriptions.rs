//! Subscriptions, tenants, locations.

use axum::response::Response;
use serde_json::{Value, json};

use super::{App, Call, reply};
use crate::app::refusal::Refusal;
use crate::config::Subscription;

/// `GET /tenants`.
pub async fn tenants(app: App, call: Call) -> Result<Response, Refusal> {
    let own = call.caller.as_ref().and_then(|caller| app.directory.tenant(&caller.tenant));
    let rows = own.map(|tenant| {
        json!({
            "id": format!("/tenants/{}", tenant.id),
            "tenantId": tenant.id,
            "displayName": tenant.name,
            "tenantCategory": "Home",
        })
    });
    Ok(reply::list(rows.into_iter().collect()))
}

/// `GET /subscriptions`: those that the caller may use.
pub async fn list(app: App, call: Call) -> Result<Response, Refusal> {
    let caller = call.caller.as_ref().expect("the route needs a caller");
    Ok(reply::list(app.directory.subscriptions(caller).into_iter().map(view).collect()))
}

/// `GET /subscriptions/{id}`.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    let found = app.directory.subscription(call.parameter("sub"));
    Ok(reply::ok(&view(found.expect("authorisation found it"))))
}

fn view(subscription: &Subscription) -> Value {
    json!({
        "id": format!("/subscriptions/{}", subscription.id),
        "subscriptionId": subscription.id,
        "tenantId": subscription.tenant,
        "displayName": subscription.name,
        "state": "Enabled",
        "subscriptionPolicies": {"locationPlacementId": "Internal", "quotaId": "Internal", "spendingLimit": "Off"},
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
    })
}

/// `GET /subscriptions/{id}/locations`.
pub async fn locations(app: App, call: Call) -> Result<Response, Refusal> {
    let region = &app.config.region;
    Ok(reply::list(vec![json!({
        "id": format!("/subscriptions/{}/locations/{region}", call.parameter("sub")),
        "name": region,
        "type": "Region",
        "displayName": region,
        "regionalDisplayName": region,
        "metadata": {"regionType": "Physical", "regionCategory": "Recommended", "pairedRegion": []},
    })]))
}
