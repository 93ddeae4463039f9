//! The chip's certificates, as the trusted-hardware identity management endpoint gives them: from the key distribution
//! service, kept for a day. A copy that has grown old is still given when the service does not answer.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use snp::{Product, Report};
use tokio::sync::Mutex;
use url::Url;

const LIFETIME: Duration = Duration::from_secs(86400);

/// Answer of `/metadata/THIM/amd/certification`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certification {
    /// PEM, with its final line break: clients append the chain without one.
    pub vcek_cert: String,
    /// The TCB version as 16 hexadecimal digits, most significant first.
    pub tcbm: String,
    /// PEM of ASK, then ARK.
    pub certificate_chain: String,
    /// Seconds.
    pub cache_control: String,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The VM has no evidence yet that names its chip.
    #[error("there is no evidence yet that names the chip")]
    NoEvidence,
    /// The evidence's report cannot be read, or names no product.
    #[error("the evidence's report names no chip: {0}")]
    Report(String),
    /// The key distribution service did not answer as it should.
    #[error("the key distribution service did not answer")]
    Kds(#[from] reqwest::Error),
}

/// The certificates of the chip that one VM runs on.
pub struct Certificates {
    kds: Url,
    http: reqwest::Client,
    /// JSON text of the VM's newest evidence.
    evidence: StdMutex<Option<String>>,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    chip: Chip,
    since: Instant,
    certification: Certification,
}

/// Names one certificate of one chip.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chip {
    product: Product,
    /// Chip id in hexadecimal.
    id: String,
    tcb_query: String,
    tcbm: String,
}

impl Certificates {
    /// Certificates by the key distribution service at `kds`.
    pub fn new(kds: Url, http: reqwest::Client) -> Arc<Self> {
        Arc::new(Self { kds, http, evidence: StdMutex::default(), kept: Mutex::default() })
    }

    /// Notes the VM's newest evidence, whose report names chip and TCB.
    pub fn note_evidence(&self, evidence: Option<&str>) {
        let mut noted = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.as_deref() != evidence {
            *noted = evidence.map(str::to_owned);
        }
    }

    /// The certificates, from the copy when it is fresh.
    pub async fn get(&self) -> Result<Certification, CertificatesError> {
        let chip = self.chip()?;
        let mut kept = self.kept.lock().await;
        let old = kept.as_ref().filter(|kept| kept.chip == chip);
        if let Some(fresh) = old.filter(|kept| kept.since.elapsed() < LIFETIME) {
            return Ok(fresh.certification.clone());
        }
        match self.fetch(&chip).await {
            Ok(certification) => {
                let copy = certification.clone();
                *kept = Some(Kept { chip, since: Instant::now(), certification: copy });
                Ok(certification)
            }
            Err(error) => old.map(|kept| kept.certification.clone()).ok_or(error),
        }
    }

    fn chip(&self) -> Result<Chip, CertificatesError> {
        let evidence = self.evidence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Chip::of(&evidence.ok_or(CertificatesError::NoEvidence)?).map_err(CertificatesError::Report)
    }

    async fn fetch(&self, chip: &Chip) -> Result<Certification, CertificatesError> {
        let base = self.kds.as_str().trim_end_matches('/');
        let product = chip.product.name();
        let vcek = format!("{base}/vcek/v1/{product}/{}?{}", chip.id, chip.tcb_query);
        let chain = format!("{base}/vcek/v1/{product}/cert_chain");
        let der = self.http.get(vcek).send().await?.error_for_status()?.bytes().await?;
        let certificate_chain = self.http.get(chain).send().await?.error_for_status()?.text().await?;
        Ok(Certification {
            vcek_cert: pem(&der),
            tcbm: chip.tcbm.clone(),
            certificate_chain,
            cache_control: LIFETIME.as_secs().to_string(),
        })
    }
}

impl Chip {
    /// The chip that the report of `evidence` (JSON text of an evidence bundle) comes from.
    fn of(evidence: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Bundle {
            snp_report: String,
        }
        let bundle: Bundle = serde_json::from_str(evidence).map_err(|error| error.to_string())?;
        let report = URL_SAFE_NO_PAD.decode(bundle.snp_report).map_err(|error| error.to_string())?;
        let report = Report::parse(&report).map_err(|error| error.to_string())?;
        let product = report.product().ok_or("it names no product")?;
        let id = report.chip_id.get(..product.chip_id_len()).unwrap_or_default();
        let components = report.reported_tcb.decode(product).components();
        let named = components.iter().filter(|(name, _)| match *name {
            "fmcSPL" => product == Product::Turin,
            name => !name.starts_with("spl"),
        });
        let query: Vec<String> = named.map(|(name, value)| format!("{name}={value}")).collect();
        Ok(Self {
            product,
            id: hex::encode(id),
            tcb_query: query.join("&"),
            tcbm: report.reported_tcb.to_string().to_uppercase(),
        })
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..text.len()).step_by(64).filter_map(|at| text.get(at..text.len().min(at + 64))).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::RawQuery;
    use axum::http::StatusCode;
    use axum::routing::get;
    use serde_json::json;

    use super::*;

    fn evidence() -> String {
        let mut report = vec![0_u8; snp::report::REPORT_SIZE];
        report[0] = 3; // version
        report[0x34] = 1; // ECDSA P-384
        report[0x180..0x188].copy_from_slice(&[3, 0, 0, 0, 0, 0, 8, 0x73]);
        report[0x188] = 0x19; // family, model, stepping: Milan
        report[0x189] = 0x01;
        report[0x18A] = 0x01;
        report[0x1A0..0x1E0].fill(0xAB);
        json!({ "version": 1, "snpReport": URL_SAFE_NO_PAD.encode(report) }).to_string()
    }

    async fn kds() -> (Url, tokio::task::JoinHandle<()>) {
        let id = "ab".repeat(64);
        let vcek = async |RawQuery(query): RawQuery| {
            let wanted = query.as_deref() == Some("blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=115");
            if wanted { Ok(vec![0x30_u8; 60]) } else { Err(StatusCode::NOT_FOUND) }
        };
        let app = Router::new()
            .route("/vcek/v1/Milan/cert_chain", get(async || "ASK and ARK\n"))
            .route(&format!("/vcek/v1/Milan/{id}"), get(vcek));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address")).parse().expect("URL");
        (url, tokio::spawn(async move { axum::serve(listener, app).await.expect("serve") }))
    }

    fn http() -> reqwest::Client {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        reqwest::Client::new()
    }

    #[tokio::test]
    async fn certificates_come_from_the_service_and_are_kept_when_it_is_gone() {
        let (url, server) = kds().await;
        let certificates = Certificates::new(url, http());
        assert!(matches!(certificates.get().await, Err(CertificatesError::NoEvidence)));
        certificates.note_evidence(Some(&evidence()));
        let first = certificates.get().await.expect("certificates");
        assert_eq!(first.tcbm, "7308000000000003");
        assert_eq!(first.certificate_chain, "ASK and ARK\n");
        assert!(first.vcek_cert.starts_with("-----BEGIN CERTIFICATE-----\nMDAw"), "{}", first.vcek_cert);
        assert!(first.vcek_cert.ends_with("-----END CERTIFICATE-----\n"));
        server.abort();
        assert_eq!(certificates.get().await.expect("the copy"), first);
    }

    #[tokio::test]
    async fn evidence_without_a_readable_report_names_no_chip() {
        let certificates = Certificates::new("http://127.0.0.1:1".parse().expect("URL"), http());
        certificates.note_evidence(Some("{\"snpReport\":\"AAAA\"}"));
        assert!(matches!(certificates.get().await, Err(CertificatesError::Report(_))));
    }
}
