//! Requests to the metadata service (plain HTTP) and to the services outside (HTTPS under the system's certificates or
//! those of a file).

use std::path::Path;
use std::time::Duration;

use public_api::denial::ErrorBody;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::failure::Failure;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer.
const MAX_BODY: u64 = 1 << 20;
/// Where Debian and its relatives keep the certificates that the system trusts.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An HTTP client.
#[derive(Clone, Debug)]
pub struct Client(ureq::Agent);

impl Client {
    /// A client that trusts the certificates in a PEM file; those of the system when no file is named.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn new(ca: Option<&Path>) -> Result<Self, Failure> {
        let path = ca.unwrap_or(Path::new(SYSTEM_CERTIFICATES));
        let unusable = |error: &dyn std::fmt::Display| {
            let message = format!("reading the certificates in {}: {error}", path.display());
            Failure::you(message, "name a PEM file with the authority of the services: --ca FILE")
        };
        let text = std::fs::read(path).map_err(|error| unusable(&error))?;
        let mut roots = Vec::new();
        for der in CertificateDer::pem_slice_iter(&text) {
            roots.push(Certificate::from_der(&der.map_err(|error| unusable(&error))?).to_owned());
        }
        let tls = TlsConfig::builder().root_certs(RootCerts::from(roots)).build();
        Ok(Self(agent(ureq::Agent::config_builder().https_only(true).tls_config(tls))))
    }

    /// A client for the metadata service, which has no certificate.
    pub fn plain() -> Self {
        Self(agent(ureq::Agent::config_builder()))
    }

    /// `GET` of the metadata service.
    ///
    /// # Errors
    /// No answer, or another than 200.
    pub fn metadata<T: DeserializeOwned>(&self, url: &str) -> Result<T, Failure> {
        let sent = self.0.get(url).header("Metadata", "true").call();
        read(url, sent, "is this a VM of Casemate or Azure? the metadata service answers there only")
    }

    /// `POST` of JSON that answers JSON.
    ///
    /// # Errors
    /// No answer, an error, or a refusal.
    pub fn post<T: DeserializeOwned>(
        &self,
        url: &str,
        bearer: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body =
            serde_json::to_vec(body).map_err(|error| Failure::us("writing a request").because(error))?;
        let mut request = self.0.post(url).header("Content-Type", "application/json");
        if let Some(token) = bearer {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        read(url, request.send(&body[..]), "is the service's URL right, and its authority in --ca FILE?")
    }
}

fn agent(builder: ureq::config::ConfigBuilder<ureq::typestate::AgentScope>) -> ureq::Agent {
    let builder = builder.timeout_global(Some(TIMEOUT)).http_status_as_error(false).max_redirects(0);
    builder.proxy(None).build().new_agent()
}

fn read<T: DeserializeOwned>(
    url: &str,
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    hint: &str,
) -> Result<T, Failure> {
    let unreachable = |error| Failure::you(format!("{url} did not answer"), hint).because(error);
    let mut response = sent.map_err(unreachable)?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec().map_err(unreachable)?;
    if status != 200 {
        return Err(refusal(url, status, &body));
    }
    serde_json::from_slice(&body)
        .map_err(|error| Failure::us(format!("{url} answered something else than was asked")).because(error))
}

fn refusal(url: &str, status: u16, body: &[u8]) -> Failure {
    let text = || String::from_utf8_lossy(body).chars().take(300).collect::<String>();
    let Ok(body) = serde_json::from_slice::<ErrorBody>(body) else {
        return Failure::us(format!("{url} answered {status}: {}", text()));
    };
    match body.error.denial {
        Some(denial) => Failure::denied(url, denial),
        None => {
            let message = format!("{url} answered {status}: {}: {}", body.error.code, body.error.message);
            match status {
                400..500 => Failure::you(message, "the message says what the service wants"),
                _ => Failure::us(message),
            }
        }
    }
}
