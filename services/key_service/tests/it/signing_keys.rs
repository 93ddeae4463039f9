//! Where issuers' keys come from: over HTTPS from a pinned place, kept, fetched again when a token names a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use axum_server::tls_rustls::{RustlsConfig, from_tcp_rustls};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::binary::certificates;
use crate::support::issuer::attestation;
use crate::support::vault::{Folder, Vault, platform_conditions};

/// An attestation service's `/certs`, over TLS, whose keys a test can change.
struct Publisher {
    port: u16,
    keys: Arc<RwLock<Value>>,
    fetches: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// Starts it with certificates in `folder`; the CA's PEM is written to `ca.pem`.
async fn publish(folder: &Folder, keys: Value) -> Publisher {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = folder.dir.path();
    std::fs::write(dir.join("ca.pem"), certificates(dir)).unwrap();
    let keys = Arc::new(RwLock::new(keys));
    let fetches = Arc::new(AtomicUsize::new(0));
    let (served, counted) = (keys.clone(), fetches.clone());
    let answer = move || {
        let (served, counted) = (served.clone(), counted.clone());
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Json(served.read().await.clone())
        }
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let chain = std::fs::read(dir.join("tls.pem")).unwrap();
    let key = std::fs::read(dir.join("tls.key")).unwrap();
    let tls = RustlsConfig::from_pem(chain, key).await.unwrap();
    let app = Router::new().route("/certs", get(answer));
    let server = from_tcp_rustls(listener, tls).unwrap().serve(app.into_make_service());
    Publisher { port, keys, fetches, server: tokio::spawn(server) }
}

impl Publisher {
    /// A vault that fetches the attestation service's keys from here.
    async fn vault(&self, folder: Folder) -> Vault {
        let dir = folder.dir.path().to_owned();
        let file = format!("jwks_file = \"{}/attestation.json\"", dir.display());
        let url = format!(
            "jwks_url = \"https://localhost:{}/certs\"\nca = \"{}/ca.pem\"",
            self.port,
            dir.display()
        );
        let vault = folder.open_with(move |config| config.replace(&file, &url)).await;
        vault.exportable("platform", platform_conditions()).await;
        vault
    }
}

async fn present(vault: &Vault) -> crate::support::vault::Answer {
    vault.release("/keys/platform/release", &attestation().token(&vault.evidence(0))).await
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept() {
    let folder = Folder::new();
    let publisher = publish(&folder, json!({"keys": [attestation().jwk()]})).await;
    let vault = publisher.vault(folder).await;
    assert_eq!(publisher.fetches.load(Ordering::SeqCst), 0, "nothing is fetched before it is needed");
    for _ in 0..3 {
        present(&vault).await.ok();
    }
    assert_eq!(publisher.fetches.load(Ordering::SeqCst), 1);
    // The issuer is away; what is known goes on working.
    publisher.server.abort();
    present(&vault).await.ok();
}

#[tokio::test]
async fn a_new_key_is_found_when_a_token_names_it() {
    let folder = Folder::new();
    let publisher = publish(&folder, json!({"keys": []})).await;
    let vault = publisher.vault(folder).await;
    let answer = present(&vault).await;
    assert_eq!(answer.denial()["code"], "TokenKeyUnknown", "{}", answer.body);
    *publisher.keys.write().await = json!({"keys": [attestation().jwk()]});
    let mut interval = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..200 {
        interval.tick().await;
        if present(&vault).await.status == StatusCode::OK {
            let fetches = publisher.fetches.load(Ordering::SeqCst);
            assert!(fetches <= 4, "an unknown key id causes one fetch a second at most, not {fetches}");
            return;
        }
    }
    panic!("the new key was never found");
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_is_a_503_and_no_refusal() {
    let folder = Folder::new();
    let publisher = publish(&folder, json!({"keys": [attestation().jwk()]})).await;
    let vault = publisher.vault(folder).await;
    publisher.server.abort();
    let _ = publisher.server.await;
    let before = vault.log().await.len();
    let answer = present(&vault).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(vault.log().await.len(), before);
}

#[tokio::test]
async fn an_issuer_behind_a_certificate_of_another_ca_is_not_asked() {
    let folder = Folder::new();
    let publisher = publish(&folder, json!({"keys": [attestation().jwk()]})).await;
    let vault_folder = folder.dir.path().to_owned();
    // The man in the middle has a certificate for the name, but not from the pinned CA.
    std::fs::write(vault_folder.join("ca.pem"), certificates(&vault_folder)).unwrap();
    let vault = publisher.vault(folder).await;
    let answer = present(&vault).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(publisher.fetches.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_key_published_as_a_certificate_counts_and_other_entries_do_not_disturb() {
    let folder = Folder::new();
    let (pkcs8, certificate) = attestation_certificate();
    let issuer = crate::support::issuer::Issuer::from_pkcs8("from-certificate", &pkcs8);
    let keys = json!({"keys": [
        {"kty": "EC", "kid": "ec", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "RSA", "kid": "for-encryption", "use": "enc", "n": "AQ", "e": "AQAB"},
        {"kty": "RSA", "n": "AQ", "e": "AQAB"},
        {"kty": "RSA", "kid": "broken", "x5c": ["AAAA"]},
        {"kty": "RSA", "kid": "from-certificate", "use": "sig", "x5c": [certificate]},
    ]});
    std::fs::write(folder.dir.path().join("attestation.json"), keys.to_string()).unwrap();
    let vault = folder.open().await;
    vault.exportable("platform", platform_conditions()).await;
    vault.release("/keys/platform/release", &issuer.token(&vault.evidence(0))).await.ok();
    for kid in ["broken", "for-encryption", "ec"] {
        let token = issuer.token_with(&json!({"alg": "RS256", "kid": kid}), &vault.evidence(0));
        let answer = vault.release("/keys/platform/release", &token).await;
        assert_eq!(answer.denial()["code"], "TokenKeyUnknown", "{kid}");
    }
}

/// A self-signed RSA certificate: PKCS#8 of its key, and its DER in standard base64.
fn attestation_certificate() -> (Vec<u8>, String) {
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let certificate = rcgen::CertificateParams::new([]).unwrap().self_signed(&key).unwrap();
    (key.serialize_der(), public_api::encoding::to_base64(certificate.der()))
}
