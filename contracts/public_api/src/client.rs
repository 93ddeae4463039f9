//! Typed clients of the public interfaces: Resource Manager, Azure Attestation, Key Vault.
//!
//! One error type tells three things apart: the service refused and said why, the service answered with an error, the
//! service did not answer.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Denial;
use crate::attestation::{AttestResponse, AttestSevSnpVmRequest, NonceResponse};
use crate::attestation_keys::{AttestationKeyCertificateRequest, AttestationKeyCertificateResponse};
use crate::attestation_policy::{ProviderSettings, ProviderView};
use crate::collateral::{PrefetchRequest, Prefetched};
use crate::decision_log::Entry;
use crate::denial::ErrorBody;
use crate::jwk::JwkSet;
use crate::key_generations::{GenerationListResult, GenerationResetParameters, GenerationResetResult};
use crate::keys::{KeyBundle, KeyCreateParameters, KeyReleaseParameters, KeyReleaseResult};
use crate::vaults::{VaultResource, VaultSettings, VaultView};

/// API version that this client sends to vaults.
pub const KEYS_API_VERSION: &str = "7.4";
/// API version that this client sends to attestation services.
pub const ATTESTATION_API_VERSION: &str = "2022-08-01";

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service refused and explained it.
    #[error("{service} refused: {denial}")]
    Denied {
        /// The service's base URL.
        service: String,
        /// The explanation.
        denial: Box<Denial>,
    },
    /// The service answered with an error.
    #[error("{service} answered {status}: {code}: {message}")]
    Status {
        /// The service's base URL.
        service: String,
        /// HTTP status.
        status: u16,
        /// Error code of the body.
        code: String,
        /// Message of the body.
        message: String,
    },
    /// No answer, or none that could be read.
    #[error("{service} could not be reached or did not answer as expected")]
    Transport {
        /// The service's base URL.
        service: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The client could not be made: no such certificate, no TLS provider.
    #[error("the client for {service} could not be set up")]
    Setup {
        /// The service's base URL.
        service: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
}

/// A connection to one service that trusts exactly the given certificates.
#[derive(Clone, Debug)]
pub struct Connection {
    base: String,
    bearer: Option<String>,
    http: reqwest::Client,
}

impl Connection {
    /// A connection to `base` (scheme, host, port; no trailing slash) that trusts only `ca_pem`.
    ///
    /// The process must have installed a rustls crypto provider before.
    pub fn new(base: &str, ca_pem: &str, timeout: Duration) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let setup = |source| ClientError::Setup { service: base.clone(), source };
        let roots = reqwest::Certificate::from_pem_bundle(ca_pem.as_bytes()).map_err(setup)?;
        let http = reqwest::Client::builder()
            .tls_certs_only(roots)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(timeout)
            .build()
            .map_err(setup)?;
        Ok(Self { base, bearer: None, http })
    }

    /// The same connection with a bearer token on every request.
    #[must_use]
    pub fn with_bearer(mut self, token: impl Into<String>) -> Self {
        self.bearer = Some(token.into());
        self
    }

    /// The service's base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request and returns status, headers and body of a success.
    pub async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<reqwest::Response, ClientError> {
        let url = if path.starts_with("https://") { path.to_owned() } else { format!("{}{path}", self.base) };
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.bearer {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|source| self.transport(source))?;
        if response.status().is_success() { Ok(response) } else { Err(self.failure(response).await) }
    }

    /// Sends a body that is no JSON, such as a JWS, and returns status, headers and body of a success.
    pub async fn send_text(
        &self,
        method: reqwest::Method,
        path: &str,
        body: &str,
    ) -> Result<reqwest::Response, ClientError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).body(body.to_owned());
        if let Some(token) = &self.bearer {
            request = request.bearer_auth(token);
        }
        let request = request.header("content-type", "text/plain");
        let response = request.send().await.map_err(|source| self.transport(source))?;
        if response.status().is_success() { Ok(response) } else { Err(self.failure(response).await) }
    }

    /// `GET` that answers a text.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let response = self.send(reqwest::Method::GET, path, None).await?;
        response.text().await.map_err(|source| self.transport(source))
    }

    /// A text that answers JSON.
    pub async fn exchange<T: DeserializeOwned>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: &str,
    ) -> Result<T, ClientError> {
        self.json(self.send_text(method, path, body).await?).await
    }

    /// `GET` that answers JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.send(reqwest::Method::GET, path, None).await?).await
    }

    /// `POST` of JSON that answers JSON.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_value(body).expect("messages have only string keys");
        self.json(self.send(reqwest::Method::POST, path, Some(&body)).await?).await
    }

    /// `POST` of a form (RFC 6749) that answers JSON.
    pub async fn post_form<T: DeserializeOwned>(
        &self,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let request = self
            .http
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.finish());
        let response = request.send().await.map_err(|source| self.transport(source))?;
        if response.status().is_success() {
            self.json(response).await
        } else {
            Err(self.failure(response).await)
        }
    }

    async fn json<T: DeserializeOwned>(&self, response: reqwest::Response) -> Result<T, ClientError> {
        response.json().await.map_err(|source| self.transport(source))
    }

    fn transport(&self, source: reqwest::Error) -> ClientError {
        ClientError::Transport { service: self.base.clone(), source }
    }

    async fn failure(&self, response: reqwest::Response) -> ClientError {
        let status = response.status().as_u16();
        let service = self.base.clone();
        let text = response.text().await.unwrap_or_default();
        let Ok(body) = serde_json::from_str::<ErrorBody>(&text) else {
            let message = text.chars().take(300).collect();
            return ClientError::Status { service, status, code: "Unreadable".to_owned(), message };
        };
        match body.error.denial {
            Some(denial) => ClientError::Denied { service, denial: Box::new(denial) },
            None => {
                ClientError::Status { service, status, code: body.error.code, message: body.error.message }
            }
        }
    }
}

/// Client of an attestation service.
#[derive(Clone, Debug)]
pub struct AttestationClient(pub Connection);

impl AttestationClient {
    /// A nonce that the service accepts once.
    pub async fn nonce(&self) -> Result<NonceResponse, ClientError> {
        self.0.post("/nonces", &serde_json::json!({})).await
    }

    /// Presents evidence, gets a token.
    pub async fn attest_sev_snp_vm(
        &self,
        request: &AttestSevSnpVmRequest,
    ) -> Result<AttestResponse, ClientError> {
        self.0.post(&format!("/attest/SevSnpVm?api-version={ATTESTATION_API_VERSION}"), request).await
    }

    /// Presents evidence, gets a certificate of a vTPM's attestation key.
    pub async fn certify_attestation_key(
        &self,
        request: &AttestationKeyCertificateRequest,
    ) -> Result<AttestationKeyCertificateResponse, ClientError> {
        self.0.post("/attestationKeyCertificates", request).await
    }

    /// Has the service fetch what evidence of a chip will need.
    pub async fn prefetch(&self, request: &PrefetchRequest) -> Result<Prefetched, ClientError> {
        self.0.post("/collateral:prefetch", request).await
    }

    /// The certificates under which tokens verify.
    pub async fn certs(&self) -> Result<JwkSet, ClientError> {
        self.0.get("/certs").await
    }

    /// Makes a provider; the same settings again change nothing.
    pub async fn put_provider(
        &self,
        name: &str,
        settings: &ProviderSettings,
    ) -> Result<ProviderView, ClientError> {
        let body = serde_json::to_value(settings).expect("messages have only string keys");
        let response = self.0.send(reqwest::Method::PUT, &format!("/providers/{name}"), Some(&body)).await?;
        self.0.json(response).await
    }

    /// A provider, `default` for the one at the root.
    pub async fn provider(&self, name: &str) -> Result<ProviderView, ClientError> {
        self.0.get(&format!("/providers/{name}")).await
    }

    /// Removes a provider with its policies, signers and signing keys.
    pub async fn remove_provider(&self, name: &str) -> Result<(), ClientError> {
        self.0.send(reqwest::Method::DELETE, &format!("/providers/{name}"), None).await.map(drop)
    }

    /// Entries of the decision log after `sequence` (a bearer token is needed).
    pub async fn log(&self, after: u64) -> Result<Vec<Entry>, ClientError> {
        self.0.get(&format!("/log?after={after}")).await
    }
}

/// Client of a vault.
#[derive(Clone, Debug)]
pub struct KeyClient(pub Connection);

impl KeyClient {
    /// Creates a key, or a new version of it.
    pub async fn create(
        &self,
        name: &str,
        parameters: &KeyCreateParameters,
    ) -> Result<KeyBundle, ClientError> {
        self.0.post(&format!("/keys/{name}/create?api-version={KEYS_API_VERSION}"), parameters).await
    }

    /// A key's public part; the newest version if `version` is empty.
    pub async fn key(&self, name: &str, version: &str) -> Result<KeyBundle, ClientError> {
        self.0.get(&format!("/keys/{name}/{version}?api-version={KEYS_API_VERSION}")).await
    }

    /// Releases the private key to the key in the token. `key_path` is `/keys/{name}/{version}`.
    pub async fn release(
        &self,
        key_path: &str,
        parameters: &KeyReleaseParameters,
    ) -> Result<KeyReleaseResult, ClientError> {
        self.0.post(&format!("{key_path}/release?api-version={KEYS_API_VERSION}"), parameters).await
    }

    /// The newest released generation of each VM under a key's name.
    pub async fn generations(&self, name: &str) -> Result<GenerationListResult, ClientError> {
        self.0.get(&format!("/keys/{name}/generations?api-version={KEYS_API_VERSION}")).await
    }

    /// Puts a VM's newest generation back, so that a guest state that was restored from a backup gets its key again.
    pub async fn reset_generation(
        &self,
        name: &str,
        vm_id: &str,
        parameters: GenerationResetParameters,
    ) -> Result<GenerationResetResult, ClientError> {
        let body = serde_json::to_value(parameters).expect("messages have only string keys");
        let path = format!("/keys/{name}/generations/{vm_id}?api-version={KEYS_API_VERSION}");
        self.0.json(self.0.send(reqwest::Method::PUT, &path, Some(&body)).await?).await
    }

    /// Entries of the decision log after `sequence`.
    pub async fn log(&self, after: u64) -> Result<Vec<Entry>, ClientError> {
        self.0.get(&format!("/log?after={after}")).await
    }
}

/// Client of the named vaults of a key service: what the control plane asks of it.
#[derive(Clone, Debug)]
pub struct VaultsClient(pub Connection);

impl VaultsClient {
    /// Makes a vault, or changes what may change of it; the same settings again change nothing.
    pub async fn put(&self, name: &str, settings: &VaultSettings) -> Result<VaultView, ClientError> {
        let body = serde_json::to_value(settings).expect("messages have only string keys");
        let path = format!("/casemate/vaults/{name}");
        self.0.json(self.0.send(reqwest::Method::PUT, &path, Some(&body)).await?).await
    }

    /// A live vault.
    pub async fn vault(&self, name: &str) -> Result<VaultView, ClientError> {
        self.0.get(&format!("/casemate/vaults/{name}")).await
    }

    /// Deletes the vault of this life of its name; it can be recovered.
    pub async fn delete(&self, name: &str, incarnation: &str) -> Result<(), ClientError> {
        let path = format!("/casemate/vaults/{name}?incarnation={incarnation}");
        self.0.send(reqwest::Method::DELETE, &path, None).await.map(drop)
    }

    /// All deleted vaults.
    pub async fn all_deleted(&self) -> Result<Vec<VaultView>, ClientError> {
        self.0.get("/casemate/deletedvaults").await
    }

    /// A deleted vault.
    pub async fn deleted(&self, name: &str) -> Result<VaultView, ClientError> {
        self.0.get(&format!("/casemate/deletedvaults/{name}")).await
    }

    /// A deleted vault is live again, for a new life of the same resource.
    pub async fn recover(&self, name: &str, resource: &VaultResource) -> Result<VaultView, ClientError> {
        self.0.post(&format!("/casemate/deletedvaults/{name}/recover"), resource).await
    }

    /// Destroys a deleted vault of this life of its name with all its keys.
    pub async fn purge(&self, name: &str, incarnation: &str) -> Result<(), ClientError> {
        let path = format!("/casemate/deletedvaults/{name}?incarnation={incarnation}");
        self.0.send(reqwest::Method::DELETE, &path, None).await.map(drop)
    }
}
