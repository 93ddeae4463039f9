//! The key service itself, for the control plane to make vaults at.

use std::path::PathBuf;

use ::key_service::config::Config;
use reqwest::Method;
use serde_json::Value;
use test_port::free_port;
use tokio::sync::oneshot;

use crate::installation::{Answer, Arm, CLIENT, Installation, SECRET, TENANT, wait_for};

pub const DOMAIN: &str = "vault.localhost";

/// A running service; it ends with this value.
pub struct KeyService {
    /// Ends the service when it goes.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    port: u16,
    directory: PathBuf,
    ca: String,
}

/// An installation whose control plane has vaults, and its key service.
pub async fn start() -> (Installation, KeyService) {
    let mut installation = Installation::stopped().await;
    let port = free_port();
    installation.config.keys.url = format!("https://localhost:{port}");
    installation.config.keys.vault_domain = Some(DOMAIN.to_owned());
    installation.config.keys.managed_hsm_domain = Some("managedhsm.localhost".to_owned());
    installation.start().await;
    let directory = installation.directory.path().to_owned();
    let mut service =
        KeyService { stop: None, thread: None, port, directory, ca: installation.authority.pem.clone() };
    service.begin(&installation).await;
    (installation, service)
}

impl KeyService {
    /// Starts it, in its directory of last time if there was one.
    pub async fn begin(&mut self, installation: &Installation) {
        let config = config(installation, self.port);
        let config = Config::load(&config).unwrap();
        let (stop, stopped) = oneshot::channel();
        self.stop = Some(stop);
        self.thread = Some(std::thread::spawn(move || serve(config, stopped)));
        let bare = installation.bare(None);
        wait_for("the key service", || async {
            let answer =
                bare.try_send(Method::GET, &format!("https://localhost:{}/health", self.port), None).await;
            answer.is_some_and(|answer| answer.status == 200).then_some(())
        })
        .await;
    }

    /// Ends it where it stands.
    pub async fn kill(&mut self) {
        drop(self.stop.take());
        let thread = self.thread.take().expect("it runs");
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    }

    /// The base address of a vault.
    pub fn url(&self, vault: &str) -> String {
        format!("https://{vault}.{DOMAIN}:{}", self.port)
    }

    /// A client of a vault by its own name, as somebody of a tenant.
    pub async fn at(&self, installation: &Installation, vault: &str, who: (&str, &str)) -> Arm {
        let (tenant, client) = who;
        let scope = format!("https://{DOMAIN}:{}/.default", self.port);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", SECRET),
            ("scope", scope.as_str()),
        ];
        let (status, body) = installation.sign_in(tenant, &form).await;
        assert_eq!(status, 200, "{body}");
        let roots = reqwest::Certificate::from_pem_bundle(self.ca.as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only(roots)
            .no_proxy()
            .resolve(&format!("{vault}.{DOMAIN}"), std::net::SocketAddr::from(([127, 0, 0, 1], self.port)))
            .build()
            .unwrap();
        let token = body["access_token"].as_str().map(str::to_owned);
        Arm { base: self.url(vault), http, token }
    }

    /// A request of [`CLIENT`]'s at a vault.
    pub async fn call(
        &self,
        installation: &Installation,
        vault: &str,
        (method, path): (Method, &str),
        body: Option<&Value>,
    ) -> Answer {
        let client = self.at(installation, vault, (TENANT, CLIENT)).await;
        let body = body.map(|body| body.to_string().into_bytes());
        client.send(method, &format!("{path}?api-version=7.4"), body).await
    }

    /// The folders of the vaults.
    pub fn folders(&self) -> usize {
        std::fs::read_dir(self.directory.join("keys/vaults")).map_or(0, Iterator::count)
    }
}

impl Drop for KeyService {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

/// A runtime of its own, which ends with the service as its process would.
fn serve(config: Config, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        tokio::select! {
            ended = ::key_service::run(config) => ended.unwrap(),
            _ = stopped => {}
        }
    });
}

/// The object id of a client's tokens.
pub async fn object_id(installation: &Installation, tenant: &str, client: &str) -> String {
    let token = installation.token(tenant, client).await;
    let payload = token.split('.').nth(1).unwrap();
    let claims = public_api::encoding::from_base64_any(payload).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["oid"].as_str().unwrap().to_owned()
}

fn config(installation: &Installation, port: u16) -> PathBuf {
    let directory = installation.directory.path().display();
    let control = &installation.config.public_url;
    let attestation = &installation.config.attestation_url;
    let audience = &installation.config.keys.audience;
    let text = format!(
        r#"
listen = "127.0.0.1:{port}"
public_url = "https://localhost:{port}"
data_dir = "{directory}/keys"
tls_certificate = "{directory}/server.pem"
tls_key = "{directory}/server.key"
allow_development_roots = true

[master_key]
file = "{directory}/keys-master.key"
create = true

[callers]
issuer = "{control}/{TENANT}/v2.0"
audience = "{audience}"
authorization = "{control}/{TENANT}"
jwks_url = "{control}/common/discovery/keys"
ca = "{directory}/ca.pem"

[vaults]
domain = "{DOMAIN}"
managed_hsm_domain = "managedhsm.localhost"
issuer = "{control}/{{tenant}}/v2.0"
authorization = "{control}/{{tenant}}"

[[authority]]
issuer = "{attestation}"
ca = "{directory}/ca.pem"
"#
    );
    let path = installation.path("keys.toml");
    std::fs::write(&path, text).unwrap();
    path
}
