//! A vault in a temporary folder, called without a network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode};
use key_service::app::{AppState, StartError};
use key_service::config::{Config, ConfigError};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::issuer::{attestation, control_plane, numbers, transfer_key};

pub const ATTESTATION: &str = "https://attest.casemate.test";
pub const CONTROL: &str = "https://login.casemate.test/tenant/";
pub const AUDIENCE: &str = "https://vault.casemate.test";
pub const BASE: &str = "https://keys.vault.casemate.test:8443";
pub const VM: &str = "0F5A2C3E-1111-4222-8333-444455556666";
pub const OTHER_VM: &str = "AAAAAAAA-1111-4222-8333-444455556666";
pub const OFFICER: &str = "Key Vault Crypto Officer";
pub const USER: &str = "Key Vault Crypto User";
pub const RELEASE_USER: &str = "Key Vault Crypto Service Release User";
pub const NOW: i64 = 1_800_000_000;

/// Which database vaults of this process are made on.
pub const STORE: &str = "CASEMATE_KEYS_STORE";

static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }

    pub fn denial(&self) -> &Value {
        &self.body["error"]["denial"]
    }

    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.body["error"]["target"].as_str().unwrap_or_default()
    }
}

/// The folder of a vault, and what it is opened with.
pub struct Folder {
    pub dir: TempDir,
    pub clock: Arc<AtomicI64>,
    pub allow_development_roots: bool,
    /// `[database]`, for a vault on a server.
    pub database: String,
}

impl Folder {
    /// For a vault in a file; with `CASEMATE_KEYS_STORE=postgres` in the environment, on the tests' server.
    pub fn new() -> Self {
        match std::env::var(STORE).as_deref() {
            Ok("postgres") => Self::on_postgres(),
            Ok(other) => panic!("{STORE}={other}: there is postgres only"),
            Err(_) => Self::in_a_file(),
        }
    }

    /// A vault in a file.
    pub fn in_a_file() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        attestation().publish(&dir.path().join("attestation.json"));
        control_plane().publish(&dir.path().join("control.json"));
        Self {
            dir,
            clock: Arc::new(AtomicI64::new(NOW)),
            allow_development_roots: true,
            database: String::new(),
        }
    }

    /// A vault on the tests' PostgreSQL server.
    pub fn on_postgres() -> Self {
        Self { database: super::postgres::shared().section(), ..Self::in_a_file() }
    }

    /// Another service on the same database: with a data folder of its own, and the same master key.
    pub fn replica(&self) -> Self {
        let other = Self { database: self.database.clone(), clock: self.clock.clone(), ..Self::in_a_file() };
        let key = other.dir.path().join("master.key");
        std::os::unix::fs::symlink(self.dir.path().join("master.key"), key).expect("a link");
        other
    }

    pub fn config_text(&self) -> String {
        let dir = self.dir.path().display();
        let development = self.allow_development_roots;
        let database = &self.database;
        let hsm = super::softhsm::usual_section();
        format!(
            r#"
listen = "127.0.0.1:0"
public_url = "{BASE}"
data_dir = "{dir}/data"
tls_certificate = "{dir}/tls.pem"
tls_key = "{dir}/tls.key"
allow_development_roots = {development}

{database}
[master_key]
file = "{dir}/master.key"
create = true

[callers]
issuer = "{CONTROL}"
audience = "{AUDIENCE}"
authorization = "https://login.casemate.test/tenant"
jwks_file = "{dir}/control.json"

[[authority]]
issuer = "{ATTESTATION}"
jwks_file = "{dir}/attestation.json"
{hsm}"#
        )
    }

    /// The configuration after `change` of its text.
    pub fn config(&self, change: impl Fn(String) -> String) -> Result<Config, ConfigError> {
        let file = self.dir.path().join("keys.toml");
        std::fs::write(&file, change(self.config_text())).expect("the test's folder is writable");
        Config::load(&file)
    }

    pub async fn try_open(&self) -> Result<AppState, StartError> {
        self.try_open_with(&|text| text).await
    }

    pub async fn try_open_with(&self, change: &impl Fn(String) -> String) -> Result<AppState, StartError> {
        let clock = self.clock.clone();
        AppState::open(&self.config(change)?, Arc::new(move || clock.load(Ordering::SeqCst))).await
    }

    pub async fn open(self) -> Vault {
        self.open_with(|text| text).await
    }

    pub async fn open_with(self, change: impl Fn(String) -> String) -> Vault {
        let state = Arc::new(self.try_open_with(&change).await.expect("the vault opens"));
        Vault { app: key_service::http::app(state.clone()), state, folder: self }
    }
}

/// A running vault.
pub struct Vault {
    pub app: Router,
    pub state: Arc<AppState>,
    pub folder: Folder,
}

impl Vault {
    pub async fn new() -> Self {
        Folder::new().open().await
    }

    /// Closes the vault and opens it again on the same folder.
    pub async fn restart(self) -> Self {
        let Vault { app, state, folder } = self;
        drop((app, state));
        folder.open().await
    }

    pub fn now(&self) -> i64 {
        self.folder.clock.load(Ordering::SeqCst)
    }

    pub fn set_clock(&self, now: i64) {
        self.folder.clock.store(now, Ordering::SeqCst);
    }

    pub fn caller(&self, roles: &[&str]) -> String {
        control_plane().token(&self.caller_claims(roles))
    }

    pub fn caller_claims(&self, roles: &[&str]) -> Value {
        let now = self.now();
        json!({
            "iss": CONTROL, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 3600,
            "appid": "app-1", "oid": "object-1", "tid": "tenant", "sub": "object-1", "idtyp": "app", "ver": "1.0",
            "roles": roles,
        })
    }

    /// Sends a request: from this machine, if it does not say from where.
    pub async fn raw(&self, mut request: Request<Body>) -> Answer {
        if request.extensions().get::<ConnectInfo<SocketAddr>>().is_none() {
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 40_000))));
        }
        let response = self.app.clone().oneshot(request).await.expect("the router does not fail");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 22).await.expect("the answer is small");
        let is_text =
            parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/"));
        let body = match bytes.is_empty() {
            true => Value::Null,
            false if is_text => Value::String(String::from_utf8(bytes.to_vec()).expect("UTF-8")),
            false => serde_json::from_slice(&bytes).expect("JSON"),
        };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn send(&self, method: &str, path: &str, token: Option<&str>, body: String) -> Answer {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut request = Request::builder().method(method).uri(format!("{path}{separator}api-version=7.4"));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = Body::from(body);
        self.raw(request.header("content-type", "application/json").body(body).expect("a request")).await
    }

    pub async fn officer(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, Some(&self.caller(&[OFFICER])), body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.officer("GET", path, &Value::Null).await
    }

    /// Creates an exportable key whose policy has these conditions.
    pub async fn exportable(&self, name: &str, conditions: Value) -> Value {
        let body = json!({
            "kty": "RSA-HSM", "key_size": 2048, "attributes": {"exportable": true},
            "release_policy": {"data": policy(&conditions)},
        });
        self.officer("POST", &format!("/keys/{name}/create"), &body).await.ok()
    }

    pub async fn release(&self, path: &str, token: &str) -> Answer {
        let body = json!({"target": token, "nonce": "n-1"});
        self.send("POST", path, Some(&self.caller(&[RELEASE_USER])), body.to_string()).await
    }

    /// The claims of a good attestation token of [`VM`], unused, for guest state `generation`.
    pub fn evidence(&self, generation: u64) -> Value {
        evidence_at(self.now(), generation)
    }

    /// All of the decision log.
    pub async fn log(&self) -> Vec<public_api::decision_log::Entry> {
        serde_json::from_value(self.get("/log?after=0").await.ok()).expect("entries")
    }
}

/// The claims of a good attestation token of [`VM`], issued at `now`, unused.
pub fn evidence_at(now: i64, generation: u64) -> Value {
    let (n, e) = numbers(transfer_key());
    let number = NEXT_TOKEN.fetch_add(1, Ordering::SeqCst);
    json!({
        "iss": ATTESTATION, "iat": now, "nbf": now, "exp": now + 28_800, "jti": format!("jti-{number}"),
        "x-ms-attestation-type": "sevsnpvm",
        "x-ms-compliance-status": "azure-compliant-cvm",
        "x-casemate-trust-root": "development",
        "x-casemate-nonce-source": "server",
        "x-ms-inittime": {"vmId": VM},
        "x-ms-runtime": {
            "keys": [{"kid": "HCLTransferKey", "kty": "RSA", "key_ops": ["encrypt"], "n": n, "e": e}],
            "guest-state": {"vm-id": VM, "generation": generation},
        },
    })
}

/// The conditions of a platform key of [`VM`] on a development installation.
pub fn platform_conditions() -> Value {
    json!([
        {"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"},
        {"claim": "x-casemate-nonce-source", "equals": "server"},
        {"claim": "x-ms-inittime.vmId", "equals": VM},
        {"claim": "x-casemate-trust-root", "equals": "development"},
    ])
}

/// `release_policy.data` with one authority.
pub fn policy(conditions: &Value) -> String {
    let authority = json!({"authority": format!("{ATTESTATION}/"), "allOf": conditions});
    super::issuer::encoded(json!({"version": "1.0.0", "anyOf": [authority]}).to_string())
}
