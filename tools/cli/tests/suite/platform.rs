//! A control plane, an attestation service and, where it is wanted, a key service for these tests, and `casemate` as two
//! tenants run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use aws_lc_rs::digest;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use test_port::free_port;

use crate::guest::{self, Guest, ISSUER};

pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
pub const OTHER_TENANT: &str = "22222222-2222-2222-2222-222222222222";
const SUBSCRIPTION: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const OTHER_SUBSCRIPTION: &str = "bbbbbbbb-0000-0000-0000-000000000001";
const OPERATOR: &str = "cccccccc-0000-0000-0000-000000000001";
const STRANGER: &str = "dddddddd-0000-0000-0000-000000000001";
const RELEASER: &str = "eeeeeeee-0000-0000-0000-000000000001";
const SECRET: &str = "a secret of this test";

/// The platform; it ends with this value.
pub struct Platform {
    directory: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
    running: Option<control_plane::Running>,
    attestation: axum_server::Handle<std::net::SocketAddr>,
    /// Which part of `casemate` the test is about.
    command: &'static str,
}

/// Writes an authority, and a certificate for localhost that it signed.
fn make_certificates(directory: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "an authority");
    std::fs::write(directory.join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("server.pem"), leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(directory.join("server.key"), key.serialize_pem()).unwrap();
}

impl Platform {
    /// For `casemate attestation`.
    pub fn up() -> Self {
        Self::start("attestation")
    }

    /// For `casemate key`: with a key service.
    pub fn with_keys() -> Self {
        let platform = Self::start("key");
        let config = key_service::config::Config::load(&platform.path("keys.toml")).unwrap();
        let listen = config.listen;
        // On a runtime of its own: it ends by a signal, so with this process.
        std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(key_service::run(config))
        });
        wait_for(|| std::net::TcpStream::connect(listen).is_ok());
        platform
    }

    fn start(command: &'static str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        make_certificates(directory.path());
        guest::publish(directory.path());
        std::fs::write(directory.path().join("secret"), SECRET).unwrap();
        std::fs::write(directory.path().join("catalog.json"), r#"{"images": []}"#).unwrap();
        let ports = [free_port(), free_port(), free_port(), free_port()];
        let config = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let control = config("control.toml", control_plane(directory.path(), ports));
        let attestation = config("attestation.toml", attestation_service(directory.path(), ports));
        config("keys.toml", key_service(directory.path(), ports));
        for (name, tenant, subscription, client) in [
            ("operator", TENANT, SUBSCRIPTION, OPERATOR),
            ("stranger", OTHER_TENANT, OTHER_SUBSCRIPTION, STRANGER),
            ("releaser", TENANT, SUBSCRIPTION, RELEASER),
        ] {
            let folder = directory.path().join(name).join("client");
            std::fs::create_dir_all(&folder).unwrap();
            let text = profile(directory.path(), ports, tenant, subscription, client);
            std::fs::write(folder.join("profile.toml"), text).unwrap();
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let control = control_plane::config::Config::load(&control).unwrap();
        let started = control_plane::start(control, Arc::new(control_plane::reconcile::FaultPlan));
        let running = Some(runtime.block_on(started).unwrap());
        let config = attestation_service::config::Config::read(&attestation).unwrap();
        let handle = axum_server::Handle::new();
        runtime.spawn(attestation_service::run(config, handle.clone()));
        runtime.block_on(handle.listening()).expect("the attestation service listens");
        Self { directory, runtime: Some(runtime), running, attestation: handle, command }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file of the user's.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn run(&self, who: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
        command.arg("--data-dir").arg(self.path(who)).arg(self.command).args(arguments);
        command.output().unwrap()
    }

    /// A VM whose key comes from the key service, and whoever may have it released.
    pub fn guest(&self) -> Guest {
        let profile = std::fs::read_to_string(self.path("releaser/client/profile.toml")).unwrap();
        Guest::new(self.directory.path(), &toml::from_str(&profile).unwrap())
    }

    /// Standard output of a command that succeeds.
    pub fn casemate(&self, arguments: &[&str]) -> String {
        let output = self.run("operator", arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The same as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.casemate(&[&["--output", "json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{arguments:?} printed no JSON: {text}"))
    }

    /// Exit code and standard error of a command that fails.
    pub fn fails(&self, who: &str, arguments: &[&str]) -> (i32, String) {
        let output = self.run(who, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} succeeded");
        assert!(output.stdout.is_empty(), "{arguments:?}: what fails prints no data");
        (output.status.code().unwrap(), said)
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.attestation.shutdown();
        if let Some(running) = self.running.take() {
            running.kill();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Asks every 20 ms, for 20 s at most.
fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    panic!("waited too long");
}

fn control_plane(directory: &Path, [control, hosts, attestation, keys]: [u16; 4]) -> String {
    let directory = directory.display();
    let secret = hex::encode(digest::digest(&digest::SHA256, SECRET.as_bytes()));
    format!(
        r#"
data_dir = "{directory}/control-plane"
listen = "127.0.0.1:{control}"
public_url = "https://localhost:{control}"
tls_certificate = "{directory}/server.pem"
tls_key = "{directory}/server.key"
region = "local"
image_dir = "{directory}"
trust_bundle = "{directory}/ca.pem"
attestation_url = "https://localhost:{attestation}"

[keys]
url = "https://localhost:{keys}"
ca = "{directory}/ca.pem"
audience = "https://localhost:{keys}"

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
    {{id = "{OTHER_SUBSCRIPTION}", tenant = "{OTHER_TENANT}", name = "theirs"}},
]

[[identity.client]]
client_id = "{OPERATOR}"
tenant = "{TENANT}"
secret_sha256 = "{secret}"
roles = ["Attestation Contributor", "Key Vault Crypto Officer"]
subscriptions = ["{SUBSCRIPTION}"]

[[identity.client]]
client_id = "{RELEASER}"
tenant = "{TENANT}"
secret_sha256 = "{secret}"
roles = ["Key Vault Crypto Service Release User"]

[[identity.client]]
client_id = "{STRANGER}"
tenant = "{OTHER_TENANT}"
secret_sha256 = "{secret}"
subscriptions = ["{OTHER_SUBSCRIPTION}"]
"#
    )
}

fn attestation_service(directory: &Path, [control, _, attestation, _]: [u16; 4]) -> String {
    let directory = directory.display();
    format!(
        r#"
listen = "127.0.0.1:{attestation}"
issuer = "https://localhost:{attestation}"
tls_certificate = "{directory}/server.pem"
tls_key = "{directory}/server.key"
data_dir = "{directory}/attestation"
kds_urls = []

[callers]
issuer = "https://localhost:{control}/{TENANT}/v2.0"
further_issuers = ["https://localhost:{control}/{OTHER_TENANT}/v2.0"]
audiences = ["https://attest.azure.net", "https://localhost:{attestation}"]
jwks_url = "https://localhost:{control}/common/discovery/keys"
ca = "{directory}/ca.pem"

[[measurement]]
name = "a launch"
launch_measurement = "{}"
"#,
        "ab".repeat(48)
    )
}

fn key_service(directory: &Path, [control, _, attestation, keys]: [u16; 4]) -> String {
    let directory = directory.display();
    format!(
        r#"
listen = "127.0.0.1:{keys}"
public_url = "https://localhost:{keys}"
tls_certificate = "{directory}/server.pem"
tls_key = "{directory}/server.key"
data_dir = "{directory}/keys"
allow_development_roots = true

[master_key]
file = "{directory}/master.key"
create = true

[callers]
issuer = "https://localhost:{control}/{TENANT}/v2.0"
audience = "https://localhost:{keys}"
authorization = "https://localhost:{control}/{TENANT}"
jwks_url = "https://localhost:{control}/common/discovery/keys"
ca = "{directory}/ca.pem"

[[authority]]
issuer = "https://localhost:{attestation}"
ca = "{directory}/ca.pem"

[[authority]]
issuer = "{ISSUER}"
jwks_file = "{directory}/issuer.json"
"#
    )
}

fn profile(
    directory: &Path,
    [control, _, attestation, keys]: [u16; 4],
    tenant: &str,
    subscription: &str,
    client: &str,
) -> String {
    let directory = directory.display();
    format!(
        r#"
control_plane = "https://localhost:{control}"
attestation = "https://localhost:{attestation}"
keys = "https://localhost:{keys}"
ca = "{directory}/ca.pem"
tenant_id = "{tenant}"
subscription_id = "{subscription}"
client_id = "{client}"
client_secret_file = "{directory}/secret"
location = "local"
"#
    )
}
