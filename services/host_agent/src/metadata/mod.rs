//! The instance metadata service of one VM, on a Unix socket that QEMU's user network forwards 169.254.169.254:80 to.
//!
//! Enough for attestation and for knowing who one is: `/metadata/instance` (with its leaves), `/metadata/versions`,
//! `/metadata/THIM/amd/certification`. Rules as Azure's service has them: `Metadata: true` is required,
//! `X-Forwarded-For` refused, GET only, `api-version` required.

mod instance;
mod thim;

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, body::Body};
use serde_json::{Value, json};
use tokio::net::UnixListener;

pub use instance::document;
pub use thim::Certificates;

/// Newest first.
const VERSIONS: &[&str] = &[
    "2025-04-07",
    "2024-07-17",
    "2024-03-15",
    "2023-11-15",
    "2023-07-01",
    "2021-12-13",
    "2021-11-15",
    "2021-11-01",
    "2021-10-01",
    "2021-08-01",
    "2021-05-01",
    "2021-03-01",
    "2021-02-01",
    "2021-01-01",
    "2020-12-01",
    "2020-10-01",
    "2020-09-01",
    "2020-07-15",
    "2020-06-01",
    "2019-11-01",
    "2019-08-15",
    "2019-08-01",
    "2019-06-04",
    "2019-06-01",
    "2019-04-30",
    "2019-03-11",
    "2019-02-01",
    "2018-10-01",
    "2018-04-02",
    "2018-02-01",
    "2017-12-01",
    "2017-08-01",
    "2017-04-02",
];

/// What one VM's service knows.
pub struct Metadata {
    /// `/metadata/instance`.
    pub instance: Value,
    /// `/metadata/THIM/amd/certification`.
    pub certificates: Arc<Certificates>,
}

/// Serves `metadata` on `socket` until the returned task is aborted.
pub fn serve(socket: &Path, metadata: Metadata) -> std::io::Result<tokio::task::JoinHandle<()>> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    let app = app(metadata);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "a metadata service has ended");
        }
    }))
}

/// The service's routes.
pub fn app(metadata: Metadata) -> Router {
    Router::new()
        .route("/metadata/versions", get(versions))
        .route("/metadata/instance", get(instance_at_root))
        .route("/metadata/instance/{*path}", get(instance_at))
        .route("/metadata/THIM/amd/certification", get(certification))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "Not found"))
        .method_not_allowed_fallback(async || refusal(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"))
        .layer(middleware::from_fn(check_headers))
        .with_state(Arc::new(metadata))
}

async fn check_headers(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let flagged = headers.get("Metadata").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    if headers.contains_key("X-Forwarded-For") {
        return refusal(StatusCode::BAD_REQUEST, "Bad request. X-Forwarded-For is not allowed");
    }
    if !flagged {
        return refusal(StatusCode::BAD_REQUEST, "Bad request. Required metadata header not specified");
    }
    if request.method() != Method::GET {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
    }
    next.run(request).await
}

async fn versions() -> Response {
    Json(json!({ "apiVersions": VERSIONS })).into_response()
}

async fn instance_at_root(State(metadata): State<Arc<Metadata>>, RawQuery(query): RawQuery) -> Response {
    answer(&metadata.instance, "", query.as_deref())
}

async fn instance_at(State(metadata): State<Arc<Metadata>>, uri: Uri, RawQuery(query): RawQuery) -> Response {
    let path = uri.path().trim_start_matches("/metadata/instance").to_owned();
    answer(&metadata.instance, &path, query.as_deref())
}

async fn certification(State(metadata): State<Arc<Metadata>>) -> Response {
    match metadata.certificates.get().await {
        Ok(certification) => Json(certification).into_response(),
        Err(error) => {
            tracing::warn!(%error, "no certificates for the metadata service");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "The chip's certificates are not available")
        }
    }
}

/// The part of the document at `path`, as JSON or as text.
fn answer(document: &Value, path: &str, query: Option<&str>) -> Response {
    let query = match Query::parse(query.unwrap_or_default()) {
        Ok(query) => query,
        Err(response) => return *response,
    };
    let pointer = path.trim_end_matches('/');
    let Some(part) = document.pointer(pointer) else {
        return refusal(StatusCode::NOT_FOUND, "Not found");
    };
    match (query.text, part) {
        (false, Value::Object(_) | Value::Array(_)) => Json(part).into_response(),
        (false, _) => {
            refusal(StatusCode::BAD_REQUEST, "Bad request. A leaf has to be asked for as format=text")
        }
        (true, Value::String(text)) => text.clone().into_response(),
        (true, Value::Object(fields)) => names(fields.keys().zip(fields.values())),
        (true, Value::Array(items)) => {
            let numbers: Vec<String> = (0..items.len()).map(|number| number.to_string()).collect();
            names(numbers.iter().zip(items))
        }
        (true, other) => other.to_string().into_response(),
    }
}

/// A folder as text: a name a line, folders with a slash.
fn names<'a>(entries: impl Iterator<Item = (&'a String, &'a Value)>) -> Response {
    let slash = |value: &Value| if value.is_object() || value.is_array() { "/" } else { "" };
    let lines: Vec<String> = entries.map(|(name, value)| format!("{name}{}", slash(value))).collect();
    lines.join("\n").into_response()
}

struct Query {
    text: bool,
}

impl Query {
    fn parse(query: &str) -> Result<Self, Box<Response>> {
        let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let one = |key: &str| {
            let mut found = pairs.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_ref());
            let first = found.next();
            if found.next().is_some() {
                return Err(Box::new(refusal(
                    StatusCode::BAD_REQUEST,
                    "Bad request. Duplicate query parameter",
                )));
            }
            Ok(first)
        };
        if !one("api-version")?.is_some_and(|version| VERSIONS.contains(&version)) {
            return Err(Box::new(no_version()));
        }
        match one("format")? {
            None | Some("json") => Ok(Self { text: false }),
            Some("text") => Ok(Self { text: true }),
            Some(_) => Err(Box::new(refusal(StatusCode::BAD_REQUEST, "Bad request. Unknown format"))),
        }
    }
}

fn no_version() -> Response {
    let text = "Bad request. api-version is invalid or was not specified in the request. For more information refer to \
                aka.ms/azureimds";
    let newest = VERSIONS.get(..3).unwrap_or(VERSIONS);
    (StatusCode::BAD_REQUEST, Json(json!({ "error": text, "newest-versions": newest }))).into_response()
}

fn refusal(status: StatusCode, text: &str) -> Response<Body> {
    (status, Json(json!({ "error": text }))).into_response()
}

#[cfg(test)]
mod tests;
