//! The two HTTPS interfaces: the public one, which speaks Resource Manager, and the one for hosts.

mod attestation_providers;
mod authorization;
mod boot_log;
mod disks;
mod encryption_sets;
mod groups;
mod health;
mod hosts;
mod image_names;
mod images;
mod inventory;
mod login;
mod metadata;
mod network;
mod operations;
mod path;
mod reply;
mod resource_providers;
pub mod routes;
mod sizes;
mod subscriptions;
mod tls;
mod vaults;
mod versions;
mod virtual_machines;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH};
use axum::http::{HeaderMap, Method};
use axum::response::Response;

use crate::app::names::Place;
use crate::app::refusal::{Kind, Refusal};
use crate::app::{ControlPlane, now_seconds};
use crate::identity::{Caller, TokenRefusal, Verdict};
use routes::{Guard, Route};

pub use hosts::router as host_router;
pub use tls::{host_server, public_server, serve};

/// Largest body of a public request.
pub const MAX_BODY: usize = 1 << 20;

/// What every handler gets.
pub type App = Arc<ControlPlane>;

/// A request after routing and authorisation.
#[derive(Debug)]
pub struct Call {
    parameters: path::Parameters,
    query: BTreeMap<String, String>,
    /// Body.
    pub body: Bytes,
    /// Who asks; nobody on open routes.
    pub caller: Option<Caller>,
    /// `api-version` as given.
    pub version: String,
}

impl Call {
    /// A part of the path, in the caller's spelling.
    pub fn parameter(&self, name: &str) -> &str {
        let found = self.parameters.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.as_str()).expect("handlers ask for what their route's path names")
    }

    /// A part of the path that not every route has.
    pub fn optional(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// A query parameter; names are matched without regard to case.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    /// Subscription, group and the resource that the path calls `name`.
    pub fn place(&self, name: &str) -> Place {
        Place {
            subscription: self.parameter("sub").to_owned(),
            group: self.parameter("group").to_owned(),
            name: self.parameter(name).to_owned(),
        }
    }
}

/// The public interface.
pub fn router(app: App) -> Router {
    Router::new().fallback(dispatch).with_state(app)
}

async fn dispatch(State(app): State<App>, request: Request) -> Response {
    let answer = handle(&app, request).await;
    let response = match answer {
        Ok(response) => response,
        Err(refusal) => reply::refusal(&app, &refusal),
    };
    reply::finish(response)
}

async fn handle(app: &App, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let found = routes::find(&parts.method, parts.uri.path());
    let guard = match &found {
        Ok((route, _)) => route.guard,
        Err(_) if path::is_resource_manager(parts.uri.path()) => Guard::SignedIn,
        Err(_) => Guard::Open,
    };
    let caller = identify(app, guard, &parts.headers)?;
    let (route, parameters) = found.map_err(|miss| miss.refusal(&parts.method, parts.uri.path()))?;
    let query = path::query(parts.uri.query().unwrap_or_default());
    let call = Call { parameters, query, body: Bytes::new(), caller, version: String::new() };
    authorise(app, route, &call)?;
    let version = versions::check(route.api, call.query("api-version"), &app.config.region)?;
    let body = read_body(&parts.method, &parts.headers, body).await?;
    (route.handler)(app.clone(), Call { version, body, ..call }).await
}

/// Who asks. An open route asks nobody.
fn identify(app: &App, guard: Guard, headers: &HeaderMap) -> Result<Option<Caller>, Refusal> {
    if guard == Guard::Open {
        return Ok(None);
    }
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(header) = header else {
        let message = "Authentication failed. The 'Authorization' header is missing.";
        return Err(Refusal::new(Kind::Unauthorized, "AuthenticationFailed", message));
    };
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        let message = "Authentication failed. The 'Authorization' header is provided in an invalid format.";
        return Err(Refusal::new(Kind::Unauthorized, "AuthenticationFailedInvalidHeader", message));
    }
    let claims = app
        .tokens
        .verify(token.trim(), app.directory.tenants(), now_seconds())
        .map_err(|reason| bad_token(&reason))?;
    let caller = Caller { client_id: claims.appid, tenant: claims.tid };
    if app.directory.client(&caller.client_id, &caller.tenant).is_none() {
        let message = "The access token's application is no client of this installation.";
        return Err(Refusal::new(Kind::Unauthorized, "InvalidAuthenticationToken", message));
    }
    Ok(Some(caller))
}

fn bad_token(reason: &TokenRefusal) -> Refusal {
    let code = match reason {
        TokenRefusal::Invalid | TokenRefusal::Immature => "InvalidAuthenticationToken",
        TokenRefusal::Expired => "ExpiredAuthenticationToken",
        TokenRefusal::Audience => "InvalidAuthenticationTokenAudience",
        TokenRefusal::Issuer => "InvalidAuthenticationTokenTenant",
    };
    Refusal::new(Kind::Unauthorized, code, format!("Authentication failed: {reason}."))
}

/// Whether the caller may do that in the path's subscription.
fn authorise(app: &App, route: &Route, call: &Call) -> Result<(), Refusal> {
    let (Guard::Subscription(access), Some(caller)) = (route.guard, &call.caller) else { return Ok(()) };
    let subscription = call.parameter("sub");
    match app.directory.judge(caller, subscription, access) {
        Verdict::Granted => Ok(()),
        Verdict::Unknown => {
            let message = format!("The subscription '{subscription}' could not be found.");
            Err(Refusal::new(Kind::NotFound, "SubscriptionNotFound", message))
        }
        Verdict::Forbidden => {
            let message = format!(
                "The client '{}' does not have authorization to perform this action over scope \
                 '/subscriptions/{subscription}'.",
                caller.client_id
            );
            Err(Refusal::new(Kind::Forbidden, "AuthorizationFailed", message))
        }
    }
}

async fn read_body(method: &Method, headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(Bytes::new());
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large(MAX_BODY));
    }
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| too_large(MAX_BODY))
}

fn too_large(limit: usize) -> Refusal {
    let message = format!("The request content is larger than the limit of {limit} bytes.");
    Refusal::new(Kind::TooLarge, "RequestContentTooLarge", message)
}
