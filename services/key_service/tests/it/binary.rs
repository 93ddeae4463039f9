//! The program itself: a configuration file, TLS, signals.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::support::issuer::control_plane;
use crate::support::vault::{AUDIENCE, CONTROL, Folder, OFFICER};

/// A running service; killed when dropped.
struct Service {
    child: Child,
    url: String,
    client: reqwest::Client,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A CA and a leaf for `localhost`; returns the CA's PEM.
pub fn certificates(dir: &Path) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    std::fs::write(dir.join("tls.pem"), leaf.pem()).unwrap();
    std::fs::write(dir.join("tls.key"), leaf_key.serialize_pem()).unwrap();
    ca.pem()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-keys"));
    command.arg("--config").arg(config).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn start(folder: &Folder) -> Service {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = folder.dir.path();
    let ca = certificates(dir);
    let port = free_port();
    let config = dir.join("run.toml");
    std::fs::write(&config, folder.config_text().replace("127.0.0.1:0", &format!("127.0.0.1:{port}")))
        .unwrap();
    let child = program(&config).spawn().unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes()).unwrap()])
        .no_proxy()
        .build()
        .unwrap();
    let service = Service { child, url: format!("https://localhost:{port}"), client };
    wait_for(async || service.get("/health", None).await.is_some()).await;
    service
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

fn unix_now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn officer() -> String {
    let now = unix_now();
    control_plane().token(&serde_json::json!({
        "iss": CONTROL, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 600, "appid": "a", "roles": [OFFICER],
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
    let created = service
        .client
        .post(format!("{}/keys/k1/create?api-version=7.4", service.url))
        .bearer_auth(officer())
        .body(r#"{"kty":"RSA"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(created.status().as_u16(), 200);
    let (status, key) = service.get("/keys/k1/?api-version=7.4", Some(&officer())).await.unwrap();
    assert_eq!((status, &key["key"]["kty"]), (200, &"RSA".into()));
    let pid = service.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = service.child.wait().unwrap();
    assert!(status.success(), "{status}");
    let mut output = String::new();
    std::io::Read::read_to_string(&mut service.child.stdout.take().unwrap(), &mut output).unwrap();
    assert_eq!(output, "", "nothing on stdout");
}
