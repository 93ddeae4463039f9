//! Evidence of this VM: the HCL report from the TPM, and the certificates of the chip that signed the report in it.

use std::thread;
use std::time::Duration;

use public_api::encoding::{to_base64, to_base64url};
use serde::Deserialize;
use serde_json::{Value, json};
use vtpm::hcl::{HclReport, NV_INDEX_REPORT, NV_INDEX_USER_DATA};

use crate::failure::Failure;
use crate::http::Client;
use crate::tpm::{Tpm, nv_read, nv_write};

/// Where the metadata service answers.
pub const METADATA_URL: &str = "http://169.254.169.254";
/// The platform makes a report anew when the last one is two seconds old; a read in between brings the old one.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Evidence of this VM, not verified: whoever relies on it does that.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The HCL report as read.
    pub hcl_report: Vec<u8>,
    /// The SNP report in it.
    pub snp_report: Vec<u8>,
    /// The runtime claims in it (JSON), as hashed into REPORT_DATA.
    pub runtime_claims: Vec<u8>,
    /// PEM of VCEK, ASK, ARK.
    pub certificates: String,
}

/// Answer of `/metadata/THIM/amd/certification`, as far as it is used.
#[derive(Deserialize)]
struct Certification {
    #[serde(rename = "vcekCert")]
    vcek: String,
    #[serde(rename = "certificateChain")]
    chain: String,
}

impl Evidence {
    /// Reads report and certificates. `user_data` becomes part of the runtime claims.
    ///
    /// # Errors
    /// A VM without such a report, or a metadata service that does not answer.
    pub fn collect(
        tpm: &mut dyn Tpm,
        metadata_url: &str,
        user_data: Option<&[u8; 64]>,
    ) -> Result<Self, Failure> {
        let hcl_report = hcl_report(tpm, user_data, &mut || thread::park_timeout(PAUSE))?;
        Self::of(hcl_report, certificates(metadata_url)?)
    }

    fn of(hcl_report: Vec<u8>, certificates: String) -> Result<Self, Failure> {
        let parsed = parse(&hcl_report)?;
        let (snp_report, runtime_claims) = (parsed.snp_report.to_vec(), parsed.claims.to_vec());
        Ok(Self { snp_report, runtime_claims, hcl_report, certificates })
    }

    /// For programs: every part in base64url, and the runtime claims as they read.
    pub fn shown(&self) -> Value {
        json!({
            "hclReport": to_base64url(&self.hcl_report),
            "snpReport": to_base64url(&self.snp_report),
            "runtimeData": to_base64url(&self.runtime_claims),
            "runtimeClaims": serde_json::from_slice::<Value>(&self.runtime_claims).unwrap_or_default(),
            "vcekCertChain": to_base64(self.certificates.as_bytes()),
        })
    }
}

/// VCEK, ASK and ARK from the metadata service.
///
/// # Errors
/// No answer.
fn certificates(metadata_url: &str) -> Result<String, Failure> {
    let url = format!("{metadata_url}/metadata/THIM/amd/certification");
    let answer: Certification = Client::plain().metadata(&url)?;
    let separator = if answer.vcek.ends_with('\n') { "" } else { "\n" };
    Ok(format!("{}{separator}{}", answer.vcek, answer.chain))
}

/// Reads the HCL report; with `user_data`, one that speaks of it. `pause` is called between two tries.
///
/// # Errors
/// No such report, or none with the data within the tries.
pub fn hcl_report(
    tpm: &mut dyn Tpm,
    user_data: Option<&[u8; 64]>,
    pause: &mut dyn FnMut(),
) -> Result<Vec<u8>, Failure> {
    if let Some(data) = user_data {
        nv_write(tpm, NV_INDEX_USER_DATA, data)?;
    }
    for _ in 0..TRIES {
        let report = nv_read(tpm, NV_INDEX_REPORT)?.ok_or_else(|| {
            let hint = "only confidential VMs have a report at NV index 0x01400001";
            Failure::you("this VM's TPM holds no attestation report", hint)
        })?;
        let claims = parse(&report)?.runtime_claims();
        let claims = claims.map_err(|error| Failure::us("reading the runtime claims").because(error))?;
        let wanted = user_data.map(hex::encode);
        if wanted.is_none() || claims.user_data == wanted {
            return Ok(report);
        }
        pause();
    }
    Err(Failure::us("the platform made no report with the user data; another program may write some too"))
}

/// Takes a report apart and checks that the hardware report binds the claims.
fn parse(report: &[u8]) -> Result<HclReport<'_>, Failure> {
    let untrusted = |error| {
        let hint = "the platform below this VM is not what it should be";
        Failure::untrusted("the attestation report cannot be used", hint).because(error)
    };
    let parsed = HclReport::parse(report).map_err(untrusted)?;
    parsed.verify_binding().map_err(untrusted)?;
    Ok(parsed)
}
