//! The attestation service itself, for the control plane to make providers at.

use std::net::SocketAddr;
use std::path::PathBuf;

use attestation_service::config::Config;
use axum_server::Handle;
use internal_api::launch::sha256_hex;
use reqwest::Method;
use serde_json::Value;

use crate::installation::{Answer, Arm, Installation, OTHER_TENANT, TENANT, wait_for};

/// The token of the service's operator.
pub const OPERATOR: &str = "the operator of the attestation service";

/// A running service; it ends with this value.
pub struct Attestation {
    handle: Handle<SocketAddr>,
    running: tokio::task::JoinHandle<()>,
    base: String,
}

impl Attestation {
    /// Starts it where the control plane looks for it, in its directory of last time if there was one.
    pub async fn start(installation: &Installation) -> Self {
        let path = config(installation);
        let config = Config::read(&path).unwrap();
        let handle = Handle::new();
        let service = attestation_service::run(config, handle.clone());
        let running = tokio::spawn(async { service.await.unwrap() });
        let base = installation.config.attestation_url.clone();
        let attestation = Self { handle, running, base };
        let bare = installation.bare(None);
        wait_for("the attestation service", || async {
            let answer = bare.try_send(Method::GET, &format!("{}/health", attestation.base), None).await;
            answer.is_some_and(|answer| answer.status == 200).then_some(())
        })
        .await;
        attestation
    }

    /// Ends it and waits until its port is free.
    pub async fn stop(mut self) {
        self.handle.shutdown();
        (&mut self.running).await.unwrap();
    }

    /// A request of somebody with that token.
    pub async fn call(
        &self,
        installation: &Installation,
        method: Method,
        path: &str,
        body: Option<&str>,
        token: &str,
    ) -> Answer {
        let url = format!("{}{path}", self.base);
        let caller: Arm = installation.bare(Some(token.to_owned()));
        caller.send(method, &url, body.map(|body| body.as_bytes().to_vec())).await
    }

    /// A provider as the operator sees it; nothing if there is none.
    pub async fn provider(&self, installation: &Installation, name: &str) -> Option<Value> {
        let path = format!("/providers/{name}");
        let answer = self.call(installation, Method::GET, &path, None, OPERATOR).await;
        (answer.status == 200).then_some(answer.body)
    }
}

impl Drop for Attestation {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

fn config(installation: &Installation) -> PathBuf {
    let directory = installation.directory.path().display();
    let control = &installation.config.public_url;
    let issuer = &installation.config.attestation_url;
    let address = issuer.replace("https://localhost", "127.0.0.1");
    let hash = sha256_hex(OPERATOR.as_bytes());
    let text = format!(
        r#"
listen = "{address}"
issuer = "{issuer}"
tls_certificate = "{directory}/server.pem"
tls_key = "{directory}/server.key"
data_dir = "{directory}/attestation"
kds_urls = []

[callers]
issuer = "{control}/{TENANT}/v2.0"
further_issuers = ["{control}/{OTHER_TENANT}/v2.0"]
audiences = ["https://attest.azure.net"]
jwks_url = "{control}/common/discovery/keys"
ca = "{directory}/ca.pem"

[[administrator]]
name = "operator"
token_sha256 = "{hash}"
roles = ["Attestation Contributor"]
"#
    );
    let path = installation.path("attestation.toml");
    std::fs::write(&path, text).unwrap();
    path
}
