//! A key service for these tests: the routes that the control plane uses, keys without material, in memory.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_server::Handle;
use public_api::denial::ErrorBody;
use public_api::encoding::from_base64_any;
use public_api::jwk::Jwk;
use public_api::keys::{KeyBundle, KeyCreateParameters, KeyUpdateParameters};
use serde_json::Value;

/// The double's memory and switches.
#[derive(Default)]
pub struct Keys {
    /// Keys by name.
    pub keys: Mutex<BTreeMap<String, KeyBundle>>,
    /// Every key ever made, in order.
    pub created: Mutex<Vec<String>>,
    /// Answers 503 while set.
    pub down: AtomicBool,
    /// Refuses to make keys while set.
    pub refusing: AtomicBool,
}

/// Serves until the handle stops it.
pub fn serve(keys: Arc<Keys>, tls: rustls::ServerConfig) -> (SocketAddr, Handle<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Handle::new();
    let router = Router::new()
        .route("/keys/{name}/create", post(create))
        .route("/keys/{name}/", get(read))
        .route("/keys/{name}/{version}", get(read_version).patch(update))
        .route("/keys/{name}", axum::routing::delete(remove))
        .with_state(keys);
    tokio::spawn(control_plane::http::serve(listener, tls, handle.clone(), router));
    (address, handle)
}

fn error(status: StatusCode, code: &str) -> Response {
    (status, Json(ErrorBody::new(code, "said the double"))).into_response()
}

/// Only a Crypto Officer for this audience gets in.
fn refuse(keys: &Keys, headers: &HeaderMap) -> Option<Response> {
    if keys.down.load(Ordering::Relaxed) {
        return Some(error(StatusCode::SERVICE_UNAVAILABLE, "Down"));
    }
    let token = headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?.to_owned();
    let payload = from_base64_any(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let officer = claims["roles"].as_array()?.iter().any(|role| role == "Key Vault Crypto Officer");
    let ours = claims["aud"] == "https://vault.azure.net";
    (!officer || !ours).then(|| error(StatusCode::FORBIDDEN, "Forbidden"))
}

async fn create(
    State(keys): State<Arc<Keys>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(wanted): Json<KeyCreateParameters>,
) -> Response {
    if let Some(refusal) = refuse(&keys, &headers) {
        return refusal;
    }
    if keys.refusing.load(Ordering::Relaxed) {
        return error(StatusCode::BAD_REQUEST, "BadParameter");
    }
    let version = uuid::Uuid::new_v4().simple().to_string();
    let key = Jwk {
        kid: Some(format!("https://keys.test/keys/{name}/{version}")),
        kty: wanted.kty,
        ..Jwk::default()
    };
    let attributes = wanted.attributes.unwrap_or_default();
    let bundle = KeyBundle { key, attributes, tags: wanted.tags, release_policy: wanted.release_policy };
    keys.created.lock().unwrap().push(name.clone());
    keys.keys.lock().unwrap().insert(name, bundle.clone());
    Json(bundle).into_response()
}

async fn read(State(keys): State<Arc<Keys>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refuse(&keys, &headers) {
        return refusal;
    }
    match keys.keys.lock().unwrap().get(&name) {
        Some(bundle) => Json(bundle).into_response(),
        None => error(StatusCode::NOT_FOUND, "KeyNotFound"),
    }
}

/// The double keeps one version of a name.
async fn read_version(
    State(keys): State<Arc<Keys>>,
    Path((name, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = refuse(&keys, &headers) {
        return refusal;
    }
    match keys.keys.lock().unwrap().get(&name).filter(|bundle| is_version(bundle, &version)) {
        Some(bundle) => Json(bundle).into_response(),
        None => error(StatusCode::NOT_FOUND, "KeyNotFound"),
    }
}

async fn update(
    State(keys): State<Arc<Keys>>,
    Path((name, version)): Path<(String, String)>,
    headers: HeaderMap,
    Json(change): Json<KeyUpdateParameters>,
) -> Response {
    if let Some(refusal) = refuse(&keys, &headers) {
        return refusal;
    }
    match keys.keys.lock().unwrap().get_mut(&name).filter(|bundle| is_version(bundle, &version)) {
        Some(bundle) => {
            bundle.tags = change.tags.unwrap_or_default();
            Json(&*bundle).into_response()
        }
        None => error(StatusCode::NOT_FOUND, "KeyNotFound"),
    }
}

fn is_version(bundle: &KeyBundle, version: &str) -> bool {
    bundle.key.kid.as_ref().is_some_and(|kid| kid.ends_with(&format!("/{version}")))
}

async fn remove(State(keys): State<Arc<Keys>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if let Some(refusal) = refuse(&keys, &headers) {
        return refusal;
    }
    match keys.keys.lock().unwrap().remove(&name) {
        Some(bundle) => Json(bundle).into_response(),
        None => error(StatusCode::NOT_FOUND, "KeyNotFound"),
    }
}
