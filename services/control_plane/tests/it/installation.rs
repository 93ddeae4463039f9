//! An installation for one test: certificates, directories, key double, control plane, client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum_server::Handle;
use control_plane::Running;
use control_plane::config::Config;
use control_plane::reconcile::{FaultPlan, Probe};
use devkit::sim_host::{Options, SimHost, development_capacity};
use internal_api::launch::sha256_hex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use reqwest::Method;
use serde_json::{Value, json};
use test_port::free_port;

use crate::key_double::{self, Keys};

pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
pub const OTHER_TENANT: &str = "22222222-2222-2222-2222-222222222222";
pub const SUBSCRIPTION: &str = "aaaaaaaa-0000-0000-0000-000000000001";
pub const SECOND_SUBSCRIPTION: &str = "aaaaaaaa-0000-0000-0000-000000000002";
pub const OTHER_SUBSCRIPTION: &str = "bbbbbbbb-0000-0000-0000-000000000001";
pub const CLIENT: &str = "cccccccc-0000-0000-0000-000000000001";
pub const READER: &str = "cccccccc-0000-0000-0000-000000000002";
pub const STRANGER: &str = "dddddddd-0000-0000-0000-000000000001";
pub const SECRET: &str = "correct horse battery staple";
pub const VERSION: &str = "2025-11-01";
pub const SSH_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@home";

/// A certificate authority and what it signed.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A leaf's certificate and key in PEM; the first name is the common name too.
    pub fn leaf(&self, names: &[&str]) -> (String, String) {
        self.leaf_named(names[0], names)
    }

    pub fn leaf_named(&self, common_name: &str, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

pub struct Installation {
    pub directory: tempfile::TempDir,
    pub authority: Authority,
    pub keys: Arc<Keys>,
    pub config: Config,
    key_handle: Handle<std::net::SocketAddr>,
    running: Option<Running>,
    http: reqwest::Client,
}

impl Installation {
    /// An installation that runs.
    pub async fn new() -> Self {
        let mut installation = Self::stopped().await;
        installation.start().await;
        installation
    }

    /// An installation that has yet to be started.
    pub async fn stopped() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("test authority");
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        write("ca.pem", &authority.pem);
        let (certificate, key) = authority.leaf(&["localhost", "127.0.0.1", "*.vault.localhost"]);
        write("server.pem", &certificate);
        write("server.key", &key);
        std::fs::create_dir(path("images")).unwrap();
        write("images/catalog.json", &catalogue().to_string());
        let keys = Arc::new(Keys::default());
        let tls = control_plane::http::public_server(&path("server.pem"), &path("server.key")).unwrap();
        let (key_address, key_handle) = key_double::serve(keys.clone(), tls);
        let ports = [free_port(), free_port(), key_address.port(), free_port()];
        let text = config_text(directory.path(), ports);
        write("control-plane.toml", &text);
        let config = Config::load(&path("control-plane.toml")).unwrap();
        let roots = reqwest::Certificate::from_pem_bundle(authority.pem.as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only(roots)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { directory, authority, keys, config, key_handle, running: None, http }
    }

    pub async fn start(&mut self) {
        self.start_with(Arc::new(FaultPlan)).await;
    }

    pub async fn start_with(&mut self, probe: Arc<dyn Probe>) {
        self.running = Some(control_plane::start(self.config.clone(), probe).await.unwrap());
    }

    /// Ends the control plane as a crash would, and waits until its ports are free.
    pub async fn kill(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn options(&self, name: &str, vcpus: u32, memory_mib: u64) -> Options {
        let (certificate, key) = self.authority.leaf(&[name]);
        Options {
            url: format!("https://localhost:{}", self.config.hosts.listen.port()),
            name: name.to_owned(),
            ca: self.authority.pem.clone(),
            identity: format!("{certificate}{key}"),
            capacity: development_capacity(vcpus, memory_mib),
            wait_seconds: 5,
        }
    }

    pub fn host(&self) -> SimHost {
        SimHost::start(self.options("host-1", 8, 65_536)).unwrap()
    }

    /// An answer of the token endpoint.
    pub async fn sign_in(&self, tenant: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}/{tenant}/oauth2/v2.0/token", self.config.public_url);
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let response = self
            .http
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// A token of a client.
    pub async fn token(&self, tenant: &str, client: &str) -> String {
        let scope = format!("{}/.default", self.config.public_url);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", SECRET),
            ("scope", scope.as_str()),
        ];
        let (status, body) = self.sign_in(tenant, &form).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// A client's token for the attestation service.
    pub async fn attestation_token(&self, tenant: &str, client: &str) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", SECRET),
            ("scope", "https://attest.azure.net/.default"),
        ];
        let (status, body) = self.sign_in(tenant, &form).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// The tenant's view of Resource Manager.
    pub async fn arm(&self) -> Arm {
        self.arm_as(TENANT, CLIENT).await
    }

    pub async fn arm_as(&self, tenant: &str, client: &str) -> Arm {
        self.bare(Some(self.token(tenant, client).await))
    }

    pub fn bare(&self, token: Option<String>) -> Arm {
        Arm { base: self.config.public_url.clone(), http: self.http.clone(), token }
    }

    pub fn app(&self) -> Arc<control_plane::app::ControlPlane> {
        self.running.as_ref().unwrap().app.clone()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.key_handle.shutdown();
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }
}

fn catalogue() -> Value {
    let image = |name: &str, version: &str, encrypted: bool| {
        json!({
            "name": name,
            "digest": sha256_hex(name.as_bytes()),
            "publisher": "casemate",
            "offer": name,
            "sku": "default",
            "version": version,
            "sizeBytes": 2_u64 << 30,
            "diskEncrypted": encrypted,
        })
    };
    json!({"images": [image("debian-13", "1.0.0", true), image("plain", "1.0.0", false)]})
}

fn config_text(directory: &std::path::Path, [public, hosts, keys, attestation]: [u16; 4]) -> String {
    let directory = directory.display();
    let secret = sha256_hex(SECRET.as_bytes());
    format!(
        r#"
data_dir = "{directory}/data"
listen = "127.0.0.1:{public}"
public_url = "https://localhost:{public}"
tls_certificate = "{directory}/server.pem"
tls_key = "{directory}/server.key"
region = "local"
image_dir = "{directory}/images"
serial_log = "{directory}/{{vm_id}}.log"
allow_development_roots = true
trust_bundle = "{directory}/ca.pem"
attestation_url = "https://localhost:{attestation}"

[keys]
url = "https://localhost:{keys}"
ca = "{directory}/ca.pem"
audience = "https://vault.azure.net"

[hosts]
listen = "127.0.0.1:{hosts}"
tls_certificate = "{directory}/server.pem"
tls_key = "{directory}/server.key"
client_ca = "{directory}/ca.pem"

[identity]
home_tenant = "{TENANT}"
tenant = [{{id = "{TENANT}", name = "home"}}, {{id = "{OTHER_TENANT}", name = "other"}}]
subscription = [
    {{id = "{SUBSCRIPTION}", tenant = "{TENANT}", name = "main"}},
    {{id = "{SECOND_SUBSCRIPTION}", tenant = "{TENANT}", name = "second"}},
    {{id = "{OTHER_SUBSCRIPTION}", tenant = "{OTHER_TENANT}", name = "theirs"}},
]

[[identity.client]]
client_id = "{CLIENT}"
tenant = "{TENANT}"
secret_sha256 = "{secret}"
roles = ["Key Vault Crypto Officer"]
subscriptions = ["{SUBSCRIPTION}"]

[[identity.client]]
client_id = "{READER}"
tenant = "{TENANT}"
secret_sha256 = "{secret}"
subscriptions = ["{SUBSCRIPTION}", "{SECOND_SUBSCRIPTION}"]
access = "read"

[[identity.client]]
client_id = "{STRANGER}"
tenant = "{OTHER_TENANT}"
secret_sha256 = "{secret}"
subscriptions = ["{OTHER_SUBSCRIPTION}"]
"#
    )
}

/// A client of Resource Manager.
#[derive(Clone)]
pub struct Arm {
    pub base: String,
    pub http: reqwest::Client,
    pub token: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// `code: message` of an error.
    pub fn error(&self) -> String {
        let error = &self.body["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}: {}", self.status, text("code"), text("message"))
    }

    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

pub fn group() -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg")
}

pub fn vm_path(name: &str) -> String {
    format!("{}/providers/Microsoft.Compute/virtualMachines/{name}", group())
}

impl Arm {
    pub async fn send(&self, method: Method, url: &str, body: Option<Vec<u8>>) -> Answer {
        self.request(method, url, body).await.expect("an answer")
    }

    /// The same of a server that may be dying or not up yet.
    pub async fn try_send(&self, method: Method, url: &str, body: Option<Value>) -> Option<Answer> {
        self.request(method, url, body.map(|body| body.to_string().into_bytes())).await
    }

    async fn request(&self, method: Method, url: &str, body: Option<Vec<u8>>) -> Option<Answer> {
        let url = if url.starts_with("https://") { url.to_owned() } else { format!("{}{url}", self.base) };
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.ok()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Some(Answer { status, headers, body, text })
    }

    /// A request with the usual version.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let separator = if path.contains('?') { '&' } else { '?' };
        let body = body.map(|body| body.to_string().into_bytes());
        self.send(method, &format!("{path}{separator}api-version={VERSION}"), body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub async fn post(&self, path: &str) -> Answer {
        self.call(Method::POST, path, None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    pub async fn make_group(&self) {
        let answer = self.put(&group(), &json!({"location": "local"})).await;
        assert!(answer.status < 300, "{answer:?}");
    }

    /// Follows an answer's operation to its end and returns the status body.
    pub async fn finish(&self, answer: &Answer) -> Value {
        assert!(answer.status < 300, "{}", answer.text);
        let url = answer.header("azure-asyncoperation").to_owned();
        assert_eq!(answer.header("retry-after"), "1");
        wait_for("the operation to end", || async {
            let status = self.send(Method::GET, &url, None).await;
            (status.body["status"] != "InProgress").then_some(status.body)
        })
        .await
    }

    /// Creates a VM and waits until its operation has succeeded.
    pub async fn make_vm(&self, name: &str) -> Value {
        self.make_group().await;
        let answer = self.put(&vm_path(name), &vm_body()).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let end = self.finish(&answer).await;
        assert_eq!(end["status"], "Succeeded", "{end}");
        self.get(&vm_path(name)).await.body
    }
}

/// A good body.
pub fn vm_body() -> Value {
    json!({
        "location": "local",
        "tags": {"purpose": "test"},
        "properties": {
            "hardwareProfile": {"vmSize": "Casemate_Dev1"},
            "storageProfile": {
                "imageReference": {"publisher": "casemate", "offer": "debian-13", "sku": "default", "version": "latest"},
                "osDisk": {
                    "createOption": "FromImage",
                    "managedDisk": {"securityProfile": {"securityEncryptionType": "DiskWithVMGuestState"}},
                },
            },
            "osProfile": {
                "computerName": "vm1",
                "adminUsername": "tenant",
                "customData": "I2Nsb3VkLWNvbmZpZwo=",
                "linuxConfiguration": {
                    "disablePasswordAuthentication": true,
                    "ssh": {"publicKeys": [{"path": "/home/tenant/.ssh/authorized_keys", "keyData": SSH_KEY}]},
                },
            },
            "securityProfile": {
                "securityType": "ConfidentialVM",
                "uefiSettings": {"secureBootEnabled": true, "vTpmEnabled": true},
            },
        },
    })
}

/// Polls until there is an answer; gives up after 20 seconds.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut poll: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tick.tick().await;
    }
}
