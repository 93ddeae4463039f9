//! The token endpoint: client credentials, in the spelling of Microsoft Entra and of AD FS.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{App, Call, path, reply};
use crate::app::now_seconds;
use crate::app::refusal::Refusal;
use crate::identity::Directory;

/// `GET /{tenant}/v2.0/.well-known/openid-configuration`. `common` and `organizations` are asked for at sign-out.
pub async fn discovery(app: App, call: Call) -> Result<Response, Refusal> {
    let name = call.parameter("tenant");
    let shared = ["common", "organizations"].iter().any(|word| word.eq_ignore_ascii_case(name));
    let tenant = if shared {
        Some(app.directory.home())
    } else {
        app.directory.tenant(name).map(|found| found.id.as_str())
    };
    let Some(tenant) = tenant else { return Ok(no_tenant(name).response()) };
    let base = format!("{}/{name}", app.config.public_url);
    Ok(reply::ok(&json!({
        "issuer": app.tokens.issuer(tenant),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "jwks_uri": format!("{}/common/discovery/keys", app.config.public_url),
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
    })))
}

/// `GET /common/discovery/keys`.
pub async fn keys(app: App, _call: Call) -> Result<Response, Refusal> {
    let keys = serde_json::to_value(app.tokens.jwks()).expect("the type has only string keys");
    Ok(reply::ok(&keys))
}

/// `POST /{tenant}/oauth2/v2.0/token`.
pub async fn token(app: App, call: Call) -> Result<Response, Refusal> {
    Ok(grant(&app, &call).unwrap_or_else(|denied| denied.response()))
}

fn grant(app: &App, call: &Call) -> Result<Response, OauthError> {
    let name = call.parameter("tenant");
    let tenant = app.directory.tenant(name).ok_or_else(|| no_tenant(name))?;
    let text = std::str::from_utf8(&call.body).map_err(|_| invalid_request("the body is not a form"))?;
    let form = path::query(text);
    let field = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if field("grant_type") != Some("client_credentials") {
        let given = field("grant_type").unwrap_or("");
        return Err(error(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            70003,
            &format!(
                "The app requested an unsupported grant type '{given}'; only client_credentials is offered."
            ),
        ));
    }
    let client_id = field("client_id").ok_or_else(|| invalid_request("client_id is missing"))?;
    let secret = field("client_secret").ok_or_else(|| invalid_request("client_secret is missing"))?;
    let audience = audience(app, &form)?;
    let client = app.directory.sign_in(&tenant.id, client_id, secret).ok_or_else(|| {
        let text = format!("Invalid client secret provided, or no application '{client_id}' in the tenant.");
        error(StatusCode::UNAUTHORIZED, "invalid_client", 7_000_215, &text)
    })?;
    let lifetime = i64::from(app.config.identity.token_lifetime_seconds);
    let (id, roles) = (&client.client_id, &client.roles);
    let mut claims = app.tokens.claims(&tenant.id, id, &audience, roles, now_seconds(), lifetime);
    claims.assignments = Directory::assignments(client);
    let token = app.tokens.sign(&claims);
    tracing::info!(client = %client.client_id, tenant = %tenant.id, audience = %audience, "token issued");
    Ok(reply::ok(&json!({
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": token,
    })))
}

/// The audience: `scope` without `/.default` (and nothing else taken off), or `resource`.
fn audience(app: &App, form: &BTreeMap<String, String>) -> Result<String, OauthError> {
    let asked = match (form.get("scope"), form.get("resource")) {
        (Some(scope), _) => scope.split(' ').find_map(|word| word.strip_suffix("/.default")),
        (None, Some(resource)) => Some(resource.as_str()),
        (None, None) => return Err(invalid_request("scope is missing")),
    };
    let asked = asked.ok_or_else(|| invalid_request("scope must end in /.default"))?;
    if is_known(app, asked) {
        return Ok(asked.to_owned());
    }
    let text = format!("The resource principal named {asked} was not found in this installation.");
    Err(error(StatusCode::BAD_REQUEST, "invalid_resource", 500_011, &text))
}

fn is_known(app: &App, asked: &str) -> bool {
    let config = &app.config;
    let asked = asked.trim_end_matches('/');
    let ours = [config.public_url.as_str(), &config.keys.audience, &config.keys.url, &config.attestation_url];
    let azure = [
        "https://management.azure.com",
        "https://management.core.windows.net",
        "https://vault.azure.net",
        "https://attest.azure.net",
    ];
    let named = config.keys.named_audiences();
    let configured = config.identity.audiences.iter().chain(&named).map(String::as_str);
    ours.into_iter().chain(azure).chain(configured).any(|known| known.trim_end_matches('/') == asked)
}

/// An error of the token endpoint (RFC 6749 section 5.2, with Entra's numbers).
struct OauthError {
    status: StatusCode,
    code: &'static str,
    number: u32,
    text: String,
}

impl OauthError {
    fn response(&self) -> Response {
        let body: Value = json!({
            "error": self.code,
            "error_description": format!("AADSTS{}: {}", self.number, self.text),
            "error_codes": [self.number],
        });
        reply::json(self.status, &body)
    }
}

fn no_tenant(name: &str) -> OauthError {
    error(StatusCode::BAD_REQUEST, "invalid_request", 90_002, &format!("Tenant '{name}' not found."))
}

fn invalid_request(text: &str) -> OauthError {
    error(StatusCode::BAD_REQUEST, "invalid_request", 900_144, text)
}

fn error(status: StatusCode, code: &'static str, number: u32, text: &str) -> OauthError {
    OauthError { status, code, number, text: text.to_owned() }
}
