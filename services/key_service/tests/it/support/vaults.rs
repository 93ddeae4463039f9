//! An installation with named vaults, called without a network: the host of each request is what its caller writes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use key_service::vaults::{self, Vaults};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::issuer::control_plane;
use super::vault::{AUDIENCE, Answer, CONTROL, Folder};

pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
pub const OTHER_TENANT: &str = "22222222-2222-2222-2222-222222222222";
pub const ALICE: &str = "aaaaaaaa-0000-0000-0000-00000000000a";
pub const BOB: &str = "bbbbbbbb-0000-0000-0000-00000000000b";
pub const ADMINISTRATOR: &str = "00482a5a-887f-4fb3-b363-3b7fe8e74483";
pub const OFFICER_ROLE: &str = "14b46e9e-c2b7-41b4-b07b-48a6ebf60603";
pub const USER_ROLE: &str = "12338af0-0e69-4776-bea7-57ae8d297424";
pub const RELEASE_ROLE: &str = "08bbd89e-9f13-488c-ac41-acfcb10c90ab";
pub const READER_ROLE: &str = "21090545-7ca7-4776-b22c-e363652d74d2";
pub const OPERATOR: &str = "Casemate Vault Operator";
pub const VAULT_AUDIENCE: &str = "https://vault.casemate.test:8443";
const DEFAULT_HOST: &str = "keys.vault.casemate.test:8443";

/// A running installation.
pub struct Town {
    pub app: Router,
    pub vaults: Arc<Vaults>,
    pub folder: Folder,
}

pub fn host(name: &str) -> String {
    format!("{name}.vault.casemate.test:8443")
}

/// One role at one scope.
pub fn assignment(principal: &str, role: &str, scope: &str) -> Value {
    json!({"principalId": principal, "roleDefinitionId": role, "scope": scope})
}

/// Settings of a vault of [`TENANT`] with these assignments.
pub fn settings(name: &str, assignments: &[Value]) -> Value {
    json!({
        "resource": {
            "id": format!("/subscriptions/s/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/{name}"),
            "incarnation": "cccccccc-0000-0000-0000-000000000001",
        },
        "tenantId": TENANT,
        "sku": "standard",
        "softDeleteRetentionInDays": 7,
        "access": {"model": "roleAssignments", "assignments": assignments},
    })
}

impl Town {
    pub async fn new() -> Self {
        Self::open(Folder::new()).await
    }

    pub async fn open(folder: Folder) -> Self {
        let config = folder.config(with_vaults).expect("a good configuration");
        let clock = folder.clock.clone();
        let clock = Arc::new(move || clock.load(Ordering::SeqCst));
        let vaults = Vaults::open(config, clock).await.expect("the installation opens");
        Self { app: vaults::app(vaults.clone()), vaults, folder }
    }

    /// Ends the process and starts another on the same folder.
    pub async fn restart(self) -> Self {
        let Self { app, vaults, folder } = self;
        drop((app, vaults));
        Self::open(folder).await
    }

    pub fn now(&self) -> i64 {
        self.folder.clock.load(Ordering::SeqCst)
    }

    /// A token of a tenant's principal for the vaults.
    pub fn token(&self, tenant: &str, object: &str) -> String {
        self.token_with(tenant, object, |_| ())
    }

    pub fn token_with(&self, tenant: &str, object: &str, change: impl FnOnce(&mut Value)) -> String {
        let now = self.now();
        let mut claims = json!({
            "iss": format!("https://login.casemate.test/{tenant}/v2.0"), "aud": VAULT_AUDIENCE,
            "iat": now, "nbf": now, "exp": now + 3600,
            "appid": "app", "oid": object, "tid": tenant, "sub": object, "idtyp": "app", "ver": "1.0",
        });
        change(&mut claims);
        control_plane().token(&claims)
    }

    /// A token of the home tenant for the default vault.
    pub fn home_token(&self, roles: &[&str]) -> String {
        let now = self.now();
        control_plane().token(&json!({
            "iss": CONTROL, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 3600,
            "appid": "control-plane", "oid": "object-1", "tid": "tenant", "sub": "object-1", "roles": roles,
        }))
    }

    pub async fn send(
        &self,
        host: &str,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Answer {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut request = Request::builder().method(method).uri(format!("{path}{separator}api-version=7.4"));
        request = request.header("host", host).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.raw(request.body(body).expect("a request")).await
    }

    pub async fn raw(&self, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 40_000))));
        let response = self.app.clone().oneshot(request).await.expect("the router does not fail");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 22).await.expect("the answer is small");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// What the control plane asks of the key service.
    pub async fn manage(&self, method: &str, path: &str, body: &Value) -> Answer {
        let token = self.home_token(&[OPERATOR]);
        self.send(DEFAULT_HOST, method, &format!("/casemate{path}"), Some(&token), body).await
    }

    /// Makes a vault of [`TENANT`].
    pub async fn make(&self, name: &str, assignments: &[Value]) {
        let answer = self.manage("PUT", &format!("/vaults/{name}"), &settings(name, assignments)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    }

    /// A request of [`ALICE`]'s at a vault.
    pub async fn alice(&self, vault: &str, method: &str, path: &str, body: &Value) -> Answer {
        self.send(&host(vault), method, path, Some(&self.token(TENANT, ALICE)), body).await
    }

    /// The public modulus of a key that Alice makes.
    pub async fn make_key(&self, vault: &str, name: &str) -> Value {
        let body = json!({"kty": "RSA", "key_size": 2048});
        self.alice(vault, "POST", &format!("/keys/{name}/create"), &body).await.ok()["key"]["n"].clone()
    }

    /// Deletes a vault of [`settings`].
    pub async fn delete(&self, name: &str) -> Answer {
        let path = format!("/vaults/{name}?incarnation=cccccccc-0000-0000-0000-000000000001");
        self.manage("DELETE", &path, &Value::Null).await
    }

    /// Purges a deleted vault of [`settings`].
    pub async fn purge(&self, name: &str) -> Answer {
        let path = format!("/deletedvaults/{name}?incarnation=cccccccc-0000-0000-0000-000000000001");
        self.manage("DELETE", &path, &Value::Null).await
    }

    /// The folder of a vault's files.
    pub fn files(&self, name: &str) -> std::path::PathBuf {
        let all = std::fs::read_dir(self.folder.dir.path().join("data/vaults")).expect("there are vaults");
        let prefix = format!("{name}.");
        let mut found = all.map(|entry| entry.expect("an entry").path());
        found
            .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix)))
            .expect("the vault has a folder")
    }
}

fn with_vaults(text: String) -> String {
    text + r#"
[vaults]
domain = "vault.casemate.test"
managed_hsm_domain = "managedhsm.casemate.test"
issuer = "https://login.casemate.test/{tenant}/v2.0"
authorization = "https://login.casemate.test/{tenant}"
"#
}
