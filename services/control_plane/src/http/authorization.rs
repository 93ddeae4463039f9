//! Role assignments and role definitions, at every scope that a path can name.

use axum::http::StatusCode;
use axum::response::Response;

use super::{App, Call, reply};
use crate::app::refusal::Refusal;
use crate::app::role_assignments::{self as assignments, Filter, Scope};
use crate::app::role_definitions as definitions;

fn scope(call: &Call) -> Scope {
    let text = |name: &str| call.optional(name).map(str::to_owned);
    let vault = text("vault").map(|name| ("vaults", name));
    Scope {
        subscription: call.parameter("sub").to_owned(),
        group: text("group"),
        vault: vault.or_else(|| text("hsm").map(|name| ("managedHSMs", name))),
        key: text("key"),
    }
}

/// `PUT .../roleAssignments/{guid}`.
pub async fn put(app: App, call: Call) -> Result<Response, Refusal> {
    let caller = call.caller.as_ref().map_or("", |caller| caller.client_id.as_str());
    let name = (call.parameter("assignment"), caller);
    let (view, created) = assignments::put(&app, &scope(&call), name, &call.body).await?;
    Ok(reply::written(&view, created))
}

/// `GET .../roleAssignments/{guid}`.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::ok(&assignments::get(&app, &scope(&call), call.parameter("assignment")).await?))
}

/// `DELETE .../roleAssignments/{guid}`: what it was, or 204.
pub async fn delete(app: App, call: Call) -> Result<Response, Refusal> {
    let removed = assignments::delete(&app, &scope(&call), call.parameter("assignment")).await?;
    Ok(removed.map_or_else(|| reply::empty(StatusCode::NO_CONTENT), |view| reply::ok(&view)))
}

/// `GET .../roleAssignments`.
pub async fn list(app: App, call: Call) -> Result<Response, Refusal> {
    let filters = Filter::parse(call.query("$filter"))?;
    Ok(reply::list(assignments::list(&app, &scope(&call), &filters).await?))
}

/// `GET .../roleDefinitions`.
pub async fn definitions(_app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::list(definitions::list(call.parameter("sub"), call.query("$filter"))))
}

/// `GET .../roleDefinitions/{guid}`.
pub async fn definition(_app: App, call: Call) -> Result<Response, Refusal> {
    Ok(reply::ok(&definitions::get(call.parameter("sub"), call.parameter("role"))?))
}
