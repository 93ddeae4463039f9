//! The program itself: a configuration file, TLS, signals.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use test_port::free_port;

use crate::support::issuer::{attestation, control_plane};
use crate::support::vault::{
    AUDIENCE, BASE, CONTROL, Folder, OFFICER, RELEASE_USER, evidence_at, platform_conditions, policy,
};

/// More than any answer takes on a busy machine: a service that hangs fails its test, and does not hang it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running service; killed when dropped.
pub struct Service {
    pub child: Child,
    pub url: String,
    pub client: reqwest::Client,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A CA and a leaf for `localhost` in a folder; returns the CA's PEM.
pub fn certificates(dir: &Path) -> String {
    let (ca, leaf, key) = issued();
    std::fs::write(dir.join("tls.pem"), leaf).unwrap();
    std::fs::write(dir.join("tls.key"), key).unwrap();
    ca
}

/// PEM of a CA, and of a leaf for `localhost` with its key.
pub fn issued() -> (String, String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A name of its own: OpenSSL takes a leaf with its issuer's name for self-signed.
    params.distinguished_name.push(DnType::CommonName, "test authority");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    (ca.pem(), leaf.pem(), leaf_key.serialize_pem())
}

fn program(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-keys"));
    command.arg("--config").arg(config).env("RUST_LOG", "warn");
    command
}

pub async fn start(folder: &Folder) -> Service {
    start_with(folder, |_| ()).await
}

/// Starts the program after a change of how it is called.
pub async fn start_with(folder: &Folder, change: impl FnOnce(&mut Command)) -> Service {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = folder.dir.path();
    let ca = certificates(dir);
    std::fs::write(dir.join("ca.pem"), &ca).unwrap();
    let port = free_port();
    let mut command = program(&configured(folder, port));
    // Not a pipe that nobody reads: a full one would hold the service for ever.
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    command.stdout(Stdio::piped()).stderr(log);
    change(&mut command);
    let child = command.spawn().unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes()).unwrap()])
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .unwrap();
    let service = Service { child, url: format!("https://localhost:{port}"), client };
    wait_for(async || service.get("/health", None).await.is_some()).await;
    service
}

/// The folder's configuration with this port.
fn configured(folder: &Folder, port: u16) -> PathBuf {
    let config = folder.dir.path().join("run.toml");
    let text = folder.config_text().replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    std::fs::write(&config, text.replace(BASE, &format!("https://localhost:{port}"))).unwrap();
    config
}

/// Asks every 20 ms, for 20 s at most.
async fn wait_for(condition: impl AsyncFn() -> bool) {
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..1000 {
        interval.tick().await;
        if condition().await {
            return;
        }
    }
    panic!("waited too long");
}

impl Service {
    async fn get(&self, path: &str, token: Option<&str>) -> Option<(u16, Value)> {
        let mut request = self.client.get(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.ok()?;
        Some((response.status().as_u16(), response.json().await.ok()?))
    }
}

impl Service {
    async fn post(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}?api-version=7.4", self.url)).bearer_auth(token);
        let response = request.body(body.to_string()).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

pub fn unix_now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

pub fn caller(role: &str) -> String {
    let now = unix_now();
    control_plane().token(&json!({
        "iss": CONTROL, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 600, "appid": "a", "roles": [role],
    }))
}

#[tokio::test]
async fn the_program_serves_over_tls_and_stops_on_sigterm() {
    let folder = Folder::new();
    let mut service = start(&folder).await;
    let (status, health) = service.get("/health", None).await.unwrap();
    assert_eq!(
        (status, &health["status"], &health["allowDevelopmentRoots"]),
        (200, &"ok".into(), &true.into())
    );
    let (status, _) = service.post("/keys/k1/create", &caller(OFFICER), &json!({"kty": "RSA"})).await;
    assert_eq!(status, 200);
    let (status, key) = service.get("/keys/k1/?api-version=7.4", Some(&caller(OFFICER))).await.unwrap();
    assert_eq!((status, &key["key"]["kty"]), (200, &"RSA".into()));
    let pid = service.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = service.child.wait().unwrap();
    assert!(status.success(), "{status}");
    let mut output = String::new();
    std::io::Read::read_to_string(&mut service.child.stdout.take().unwrap(), &mut output).unwrap();
    assert_eq!(output, "", "nothing on stdout");
}

/// What was answered is on the disk: a process killed right after its answer has forgotten nothing.
#[tokio::test]
async fn a_killed_service_remembers_tokens_and_generations() {
    let folder = Folder::new();
    let mut service = start(&folder).await;
    let key = json!({
        "kty": "RSA-HSM", "attributes": {"exportable": true},
        "release_policy": {"data": policy(&platform_conditions())},
    });
    assert_eq!(service.post("/keys/k/create", &caller(OFFICER), &key).await.0, 200);
    let mut spent = Vec::new();
    for generation in 0..=2 {
        let token = attestation().token(&evidence_at(unix_now(), generation));
        let body = json!({"target": token});
        let (status, answer) = service.post("/keys/k/release", &caller(RELEASE_USER), &body).await;
        assert_eq!(status, 200, "{answer}");
        service.child.kill().unwrap();
        service.child.wait().unwrap();
        service = start(&folder).await;
        spent.push(body);
    }
    for body in spent {
        let (status, answer) = service.post("/keys/k/release", &caller(RELEASE_USER), &body).await;
        assert_eq!((status, &answer["error"]["denial"]["code"]), (403, &json!("TokenReplayed")));
    }
    let old = json!({"target": attestation().token(&evidence_at(unix_now(), 1))});
    let (_, answer) = service.post("/keys/k/release", &caller(RELEASE_USER), &old).await;
    assert_eq!(answer["error"]["denial"]["code"], "RollbackRefused");
}

/// Runs the program until it ends by itself; returns what it said.
fn refused(config: &Path) -> String {
    let output = program(config).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_start_that_cannot_work_ends_with_the_reason() {
    let folder = Folder::new();
    let dir = folder.dir.path();
    certificates(dir);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = refused(&configured(&folder, port));
    assert!(
        text.contains(&format!("could not listen on 127.0.0.1:{port}: Address already in use")),
        "{text}"
    );
    assert!(!dir.join("data").exists(), "nothing was made before the port was free");
    let config = configured(&folder, free_port());
    std::fs::write(dir.join("tls.key"), "no key").unwrap();
    let text = refused(&config);
    assert!(text.contains("could not use the TLS certificate"), "{text}");
    let text = refused(&dir.join("nowhere.toml"));
    assert!(text.contains("could not read the configuration"), "{text}");
    std::fs::write(&config, "verbose = true\n").unwrap();
    let text = refused(&config);
    assert!(text.contains("verbose"), "{text}");
}

#[tokio::test]
async fn a_second_program_on_the_same_data_folder_says_so() {
    let folder = Folder::new();
    let _service = start(&folder).await;
    let text = refused(&configured(&folder, free_port()));
    assert!(text.contains("another key service runs on the data folder"), "{text}");
}
