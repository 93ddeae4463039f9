//! The report that the guest reads at NV index 0x01400001: who asks for it, and the claims it binds.

use public_api::jwk::Jwk;
use serde::Serialize;
use vtpm::key::RsaPublic;

use super::identity::TpmError;
use crate::failure::Stop;

/// Where reports come from: the secure processor, at VMPL 0.
pub trait ReportSource: Send {
    /// A report of 1184 bytes over the given data.
    fn report(&mut self, report_data: [u8; 64]) -> Result<Vec<u8>, Stop>;
}

/// What the VM is configured to be; the HCL report's `vm-configuration`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct VmConfiguration {
    /// SHA-256 (base64url) of the drive with the tenant's provisioning data: the guest takes the drive by this digest, for
    /// the host could attach another one under the same label.
    pub config_drive: String,
    /// Whether the guest has a serial console that the host can read.
    pub console_enabled: bool,
    /// Whether UEFI Secure Boot is on.
    pub secure_boot: bool,
    /// A TPM is there.
    pub tpm_enabled: bool,
    /// Its state is kept over boots.
    pub tpm_persisted: bool,
    /// Upper-case GUID.
    #[serde(rename = "vmUniqueId")]
    pub vm_unique_id: String,
}

/// The runtime claims of the HCL report.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Claims<'a> {
    keys: [Jwk; 1],
    vm_configuration: &'a VmConfiguration,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_data: Option<String>,
}

/// The HCL report over the attestation key, the configuration and what the guest left at 0x01400002.
pub fn hcl_report(
    source: &mut dyn ReportSource,
    ak: &RsaPublic,
    configuration: &VmConfiguration,
    user_data: Option<[u8; 64]>,
) -> Result<Vec<u8>, TpmError> {
    let claims = hcl_claims(ak, configuration, user_data)?;
    let report = source.report(report_data(&claims)).map_err(TpmError::NoReport)?;
    vtpm::hcl::build(&report, &claims).map_err(|error| TpmError::Report(error.to_string()))
}

/// The runtime claims that bind an attestation key into REPORT_DATA.
pub fn hcl_claims(
    ak: &RsaPublic,
    configuration: &VmConfiguration,
    user_data: Option<[u8; 64]>,
) -> Result<Vec<u8>, TpmError> {
    let key = Jwk {
        kid: Some("HCLAkPub".to_owned()),
        key_ops: vec!["sign".to_owned()],
        kty: "RSA".to_owned(),
        e: Some(ak.jwk_e()),
        n: Some(ak.jwk_n()),
        ..Jwk::default()
    };
    let user_data = user_data.map(hex::encode);
    let claims = Claims { keys: [key], vm_configuration: configuration, user_data };
    serde_json::to_vec(&claims).map_err(|error| TpmError::Report(error.to_string()))
}

/// REPORT_DATA for some claims: their SHA-256, then zeros.
pub fn report_data(claims: &[u8]) -> [u8; 64] {
    let mut data = [0; 64];
    data.iter_mut().zip(vtpm::pcr::sha256(claims)).for_each(|(to, from)| *to = from);
    data
}
