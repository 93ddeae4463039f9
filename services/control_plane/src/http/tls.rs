//! TLS of both interfaces, and the names in a host's certificate.

use std::net::TcpListener;
use std::sync::Arc;

use axum_server::Handle;
use axum_server::tls::TlsInfo;
use axum_server::tls_rustls::RustlsConfig;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::StartError;

/// TLS of the public interface.
pub fn public_server(
    certificate: &std::path::Path,
    key: &std::path::Path,
) -> Result<ServerConfig, StartError> {
    let builder = ServerConfig::builder().with_no_client_auth();
    identity(builder, certificate, key)
}

/// TLS of the host interface: a client without a certificate of the installation's CA does not get in.
pub fn host_server(
    certificate: &std::path::Path,
    key: &std::path::Path,
    client_ca: &std::path::Path,
) -> Result<ServerConfig, StartError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(client_ca)? {
        roots.add(root).map_err(|source| StartError::Tls { source })?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .map_err(|error| StartError::Material { path: client_ca.to_owned(), reason: error.to_string() })?;
    identity(ServerConfig::builder().with_client_cert_verifier(verifier), certificate, key)
}

fn identity(
    builder: rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
    certificate: &std::path::Path,
    key: &std::path::Path,
) -> Result<ServerConfig, StartError> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| StartError::Material { path: key.to_owned(), reason: error.to_string() })?;
    let mut config = builder.with_single_cert(chain, private).map_err(|source| StartError::Tls { source })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let bad = |reason: String| StartError::Material { path: path.to_owned(), reason };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?.collect();
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() { Err(bad("no certificate in it".to_owned())) } else { Ok(found) }
}

/// Serves a router until the handle is told to stop.
pub async fn serve(
    listener: TcpListener,
    config: ServerConfig,
    handle: Handle<std::net::SocketAddr>,
    router: axum::Router,
) -> std::io::Result<()> {
    let acceptor = RustlsConfig::from_config(Arc::new(config));
    axum_server::from_tcp_rustls(listener, acceptor)?.handle(handle).serve(router.into_make_service()).await
}

/// The names in the client's certificate: DNS names of its subject alternative name, and its common name.
pub fn names(info: &TlsInfo) -> Vec<String> {
    let parsed = info.peer_certificates.first().and_then(|der| Certificate::from_der(der).ok());
    let Some(certificate) = parsed else { return Vec::new() };
    let body = certificate.tbs_certificate();
    let mut names = Vec::new();
    if let Ok(Some((_, alternatives))) = body.get_extension::<SubjectAltName>() {
        names.extend(alternatives.0.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
            _ => None,
        }));
    }
    if let Ok(Some(name)) = body.subject().common_name() {
        names.push(name.value().into_owned());
    }
    names
}
