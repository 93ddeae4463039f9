//! The program itself: TLS, the typed client, SIGTERM, and what keeps it from starting.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use public_api::attestation::AttestSevSnpVmRequest;
use public_api::client::{AttestationClient, ClientError, Connection};
use test_port::free_port;

use crate::support::*;

/// A running program; it ends with this value.
pub struct Running {
    child: Child,
    pub directory: tempfile::TempDir,
    port: u16,
    /// PEM of the certificate authority.
    pub ca: String,
}

impl Running {
    pub fn base(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(directory: &Path, port: u16) -> String {
    let path = |name: &str| directory.join(name);
    let build = BUILD.config();
    format!(
        "listen = \"127.0.0.1:{port}\"\nissuer = \"https://127.0.0.1:{port}\"\ntls_certificate = {:?}\ntls_key = {:?}\n\
         data_dir = {:?}\nallow_development_roots = true\ndevelopment_root = {:?}\n[[firmware]]\nname = \"n\"\n\
         firmware = {:?}\nparavisor = {:?}\nvars_template = {:?}\ncpu_models = [\"EPYC-Milan\"]\nvcpus = [2]\n\
         [[administrator]]\nname = \"administrator\"\ntoken_sha256 = \"{}\"\nroles = [\"Attestation Contributor\"]\n",
        path("tls.pem"),
        path("tls.key"),
        path("data"),
        OURS.root(),
        build.firmware,
        build.paravisor,
        build.vars_template,
        hex::encode(sha256(ADMIN_TOKEN.as_bytes())),
    )
}

/// A CA and a leaf for 127.0.0.1: rustls refuses a CA certificate as a server's.
fn tls(directory: &Path) -> String {
    let mut ca = rcgen::CertificateParams::default();
    // Named otherwise than the leaf, or OpenSSL takes the leaf for self-signed.
    ca.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
    std::fs::write(directory.join("tls.pem"), certificate.pem()).expect("written");
    std::fs::write(directory.join("tls.key"), key.serialize_pem()).expect("written");
    ca_pem
}

fn start(config: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-attestation"));
    command.arg("--config").arg(config).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

pub async fn running() -> Running {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().expect("a directory");
    let ca = tls(directory.path());
    let port = free_port();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, config(directory.path(), port)).expect("written");
    let running = Running { child: start(&path), directory, port, ca };
    let end = Instant::now() + Duration::from_secs(60);
    let mut tries = tokio::time::interval(Duration::from_millis(50));
    while client(&running).0.get::<serde_json::Value>("/health").await.is_err() {
        assert!(Instant::now() < end, "the service did not come up");
        tries.tick().await;
    }
    running
}

fn client(running: &Running) -> AttestationClient {
    AttestationClient(
        Connection::new(&running.base(), &running.ca, Duration::from_secs(10)).expect("a client"),
    )
}

#[tokio::test]
async fn the_typed_client_attests_over_tls_and_sigterm_ends_the_program() {
    let mut running = running().await;
    let client = client(&running);
    let nonce = client.nonce().await.expect("a nonce").nonce;
    let request = |attempt: &Attempt| -> AttestSevSnpVmRequest {
        serde_json::from_value(attempt.body()).expect("the contract reads what the tests send")
    };
    let attempt = Attempt::with_nonce(&nonce);
    let token = client.attest_sev_snp_vm(&request(&attempt)).await.expect("a token").token;
    assert_eq!(payload(&token)["x-casemate-nonce-source"], "server");
    let refused = client.attest_sev_snp_vm(&request(&attempt)).await.expect_err("replayed");
    assert!(matches!(refused, ClientError::Denied { denial, .. } if denial.code == "NonceReplayed"));
    assert_eq!(client.certs().await.expect("keys").keys.len(), 1);

    let pid = running.child.id().to_string();
    assert!(Command::new("kill").arg("-TERM").arg(pid).status().expect("kill runs").success());
    let status = running.child.wait().expect("the program ends");
    assert!(status.success(), "{status}");
    let mut stdout = String::new();
    std::io::Read::read_to_string(running.child.stdout.as_mut().expect("piped"), &mut stdout).expect("read");
    assert_eq!(stdout, "", "a service prints nothing on standard output");
    assert!(running.directory.path().join("data/attestation.sqlite").exists());
}

/// Standard error of a start that fails.
fn fails(config: &Path) -> String {
    let output = start(config).wait_with_output().expect("the program ends");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn what_keeps_the_program_from_starting_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    tls(directory.path());
    let path = directory.path().join("config.toml");
    let text = config(directory.path(), free_port());
    let refused = |text: String, expected: &str| {
        std::fs::write(&path, text).expect("written");
        let told = fails(&path);
        assert!(told.contains(expected), "{told}");
    };
    refused(format!("colour = \"red\"\n{text}"), "unknown field `colour`");
    refused(text.replace("\"EPYC-Milan\"", "\"EPYC-Napoli\""), "EPYC-Napoli");
    refused(text.replace("vcpus = [2]", "vcpus = [513]"), "513 is not between 1 and 512");
    refused(text.replace("tls.key", "missing.key"), "reading the TLS certificate and key");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let start = text.find("127.0.0.1:").expect("there");
    let end = text[start..].find('"').expect("there") + start;
    refused(text.replace(&text[start..end], &address), "listening on");
}
