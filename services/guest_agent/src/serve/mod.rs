//! The socket: what the commands do, for programs of this VM that speak HTTP over a UNIX socket.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /health` | | `{"status":"ok"}` |
//! | `GET /evidence?userData=HEX` | | as `evidence --output json` |
//! | `POST /token` | `{"nonce"?, "type"? "SevSnpVm" or "AzureGuest"}` | `{"token"}` |
//! | `POST /release` | `{"key"}` | `{"kid", "kty", "key"}` |
//!
//! Errors have the form of the services' own: `{"error":{"code","message","denial"?}}`. Who may open the socket may do
//! all of this; the file's mode is the only lock.

mod connection;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use nix::unistd::Group;
use public_api::Denial;
use public_api::denial::ErrorBody;
use serde::Deserialize;
use serde_json::{Value, json};

pub use self::connection::{Request, Response};
use crate::agent::{Surroundings, TokenKind, shown, user_data};
use crate::failure::{Blame, Failure};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 16;
/// How long a client may take to ask and to read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves until the process ends.
///
/// # Errors
/// A socket that cannot be made.
pub fn run(surroundings: Surroundings, socket: &Path, group: Option<&str>) -> Result<(), Failure> {
    let listener = listen(socket, group)?;
    let surroundings = Arc::new(surroundings);
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let (surroundings, place) = (surroundings.clone(), Place::take(&open));
        let answered = move || {
            converse(&stream, &mut |request| match &place {
                Some(_) => answer(&surroundings, request),
                None => failed(503, "Busy", "too many connections at a time"),
            })
        };
        // A thread that cannot be started drops the connection.
        let _ = thread::Builder::new().spawn(answered);
    }
    Ok(())
}

/// One of the places for connections.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let before = open.fetch_add(1, Ordering::AcqRel);
        let place = Self(open.clone());
        (before < MAX_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A socket for its owner, and for a group when one is named.
fn listen(socket: &Path, group: Option<&str>) -> Result<UnixListener, Failure> {
    let failed = |error: io::Error| {
        let hint = "is its folder there, and may this user write to it?";
        Failure::you(format!("listening on {}", socket.display()), hint).because(error)
    };
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(socket);
    umask(before);
    let listener = listener.map_err(failed)?;
    if let Some(name) = group {
        let found = Group::from_name(name).map_err(|error| failed(error.into()))?;
        let group =
            found.ok_or_else(|| Failure::you(format!("there is no group {name}"), "addgroup NAME"))?;
        std::os::unix::fs::chown(socket, None, Some(group.gid.as_raw())).map_err(failed)?;
        fs::set_permissions(socket, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    }
    Ok(listener)
}

/// One request, one answer.
pub fn converse(mut stream: &UnixStream, answer: &mut dyn FnMut(&Request) -> Response) {
    let limits = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)));
    if limits.is_err() {
        return;
    }
    let response = match Request::read(&mut stream) {
        Ok(request) => answer(&request),
        Err(problem) => failed(problem.status(), "BadRequest", &problem.to_string()),
    };
    // A client that went away does not matter.
    let _ = response.write(&mut stream);
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TokenRequest {
    nonce: Option<String>,
    #[serde(rename = "type", default = "sev_snp_vm")]
    kind: String,
}

fn sev_snp_vm() -> String {
    "SevSnpVm".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseRequest {
    key: String,
}

/// Carries out a request.
pub fn answer(surroundings: &Surroundings, request: &Request) -> Response {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let outcome = match (request.method.as_str(), path) {
        ("GET", "/health") => Ok(json!({ "status": "ok" })),
        ("GET", "/evidence") => evidence(surroundings, query),
        ("POST", "/token") => token(surroundings, &request.body),
        ("POST", "/release") => release(surroundings, &request.body),
        (_, "/health" | "/evidence" | "/token" | "/release") => {
            return failed(405, "MethodNotAllowed", "GET /health, GET /evidence, POST /token, POST /release");
        }
        _ => return failed(404, "NotFound", "GET /health, GET /evidence, POST /token, POST /release"),
    };
    match outcome {
        Ok(value) => Response { status: 200, body: value },
        Err(failure) => refused(&failure),
    }
}

fn evidence(surroundings: &Surroundings, query: &str) -> Result<Value, Failure> {
    let data = match query.split_once('=') {
        None if query.is_empty() => None,
        Some(("userData", text)) => Some(user_data(text)?),
        _ => return Err(Failure::you("unknown query", "GET /evidence?userData=HEX")),
    };
    Ok(surroundings.evidence(data.as_ref())?.shown())
}

fn token(surroundings: &Surroundings, body: &[u8]) -> Result<Value, Failure> {
    let request: TokenRequest = read(body)?;
    let kind = match request.kind.as_str() {
        "SevSnpVm" => TokenKind::SevSnpVm,
        "AzureGuest" => TokenKind::AzureGuest,
        other => return Err(Failure::you(format!("no token of type {other}"), "SevSnpVm or AzureGuest")),
    };
    Ok(json!({ "token": surroundings.token(kind, request.nonce.as_deref())? }))
}

fn release(surroundings: &Surroundings, body: &[u8]) -> Result<Value, Failure> {
    let request: ReleaseRequest = read(body)?;
    Ok(shown(&surroundings.release(&request.key)?))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        Failure::you("the body is not understood", "see `docs/guest-agent.md`").because(error)
    })
}

fn refused(failure: &Failure) -> Response {
    let status = match failure.blame() {
        Blame::You => 400,
        Blame::Refused => 403,
        Blame::Us => 502,
    };
    let code = failure.denial().map_or("Failed", |denial: &Denial| denial.code.as_str());
    let mut body = ErrorBody::new(code, failure.chain());
    body.error.denial = failure.denial().cloned();
    Response { status, body: serde_json::to_value(body).unwrap_or_default() }
}

fn failed(status: u16, code: &str, message: &str) -> Response {
    Response { status, body: serde_json::to_value(ErrorBody::new(code, message)).unwrap_or_default() }
}
