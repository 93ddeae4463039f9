//! The HCL report at NV index 0x01400001: a 32-byte header, the hardware report, a request-data block and the runtime
//! claims (JSON). The hardware report's REPORT_DATA holds the hash of the claims, exactly as stored.
//!
//! Layout as in openvmm's `openhcl_attestation_protocol` (`igvm_attest::get`), little-endian:
//!
//! ```text
//!    0  "HCLA", version, report size (of the whole), request type, status, 12 reserved bytes
//!   32  SNP report (1184 bytes)
//! 1216  data size (20 + claims), version, report type, hash type, claims size
//! 1236  claims
//! ```
//!
//! This module writes header version 2 and reads versions 1 and 2. It checks the binding between claims and hardware
//! report; the hardware report's own signature is another crate's business.

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use serde::Deserialize;
use thiserror::Error;

use crate::bytes::{Cursor, size, slice};
use crate::key::RsaPublic;

/// NV index of the report.
pub const NV_INDEX_REPORT: u32 = 0x0140_0001;
/// NV index from which the guest's own report data (64 bytes) is taken.
pub const NV_INDEX_USER_DATA: u32 = 0x0140_0002;
/// NV index of the attestation key's certificate.
pub const NV_INDEX_AK_CERTIFICATE: u32 = 0x01C1_01D0;
/// Persistent handle of the storage root key.
pub const HANDLE_SRK: u32 = 0x8100_0001;
/// Persistent handle of the attestation key.
pub const HANDLE_AK: u32 = 0x8100_0003;

/// The largest report: an NV index of libtpms holds no more.
pub const MAX_REPORT: usize = 2048;
/// Bytes of claims that fit into [`MAX_REPORT`].
pub const MAX_CLAIMS: usize = MAX_REPORT - CLAIMS_OFFSET;

const SNP_REPORT_SIZE: usize = 0x4A0;
const REPORT_OFFSET: usize = 32;
const REQUEST_OFFSET: usize = REPORT_OFFSET + SNP_REPORT_SIZE;
const CLAIMS_OFFSET: usize = REQUEST_OFFSET + 20;
const REPORT_DATA_OFFSET: usize = 0x50;
const SIGNATURE: [u8; 4] = *b"HCLA";
const REQUEST_AK_CERTIFICATE: u32 = 2;
const REPORT_TYPE_SNP: u32 = 2;
const HASH_SHA256: u32 = 1;

/// Why an HCL report cannot be built or is not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HclError {
    /// The hardware report has another size than an SNP report.
    #[error("the hardware report has {0} bytes, an snp report has 1184")]
    ReportSize(usize),
    /// The claims do not fit.
    #[error("the runtime claims have {0} bytes, at most 812 fit into the nv index")]
    ClaimsTooLong(usize),
    /// The bytes end before the report does.
    #[error("the hcl report is truncated: {0}")]
    Truncated(&'static str),
    /// A header field has a value that this format does not have.
    #[error("the hcl report's {field} is {value:#x}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What it held.
        value: u32,
    },
    /// The hardware report does not speak of these claims.
    #[error("report_data is not the hash of the runtime claims")]
    NotBound,
    /// The claims are no JSON of the expected shape.
    #[error("the runtime claims cannot be read: {0}")]
    Claims(String),
}

/// Builds the report that the guest reads: header version 2, request type AK_CERT, claims hashed with SHA-256.
///
/// # Errors
/// [`HclError::ReportSize`], [`HclError::ClaimsTooLong`], or [`HclError::NotBound`] when the SNP report was not made for
/// these claims.
pub fn build(snp_report: &[u8], claims_json: &[u8]) -> Result<Vec<u8>, HclError> {
    if snp_report.len() != SNP_REPORT_SIZE {
        return Err(HclError::ReportSize(snp_report.len()));
    }
    let too_long = || HclError::ClaimsTooLong(claims_json.len());
    if claims_json.len() > MAX_CLAIMS {
        return Err(too_long());
    }
    check_binding(snp_report, claims_json, HASH_SHA256)?;
    let claims_size = u32::try_from(claims_json.len()).map_err(|_| too_long())?;
    let total = u32::try_from(CLAIMS_OFFSET + claims_json.len()).map_err(|_| too_long())?;
    let mut out = Vec::with_capacity(CLAIMS_OFFSET + claims_json.len());
    out.extend_from_slice(&SIGNATURE);
    for word in [2, total, REQUEST_AK_CERTIFICATE, 0, 0, 0, 0] {
        out.extend_from_slice(&u32::to_le_bytes(word));
    }
    out.extend_from_slice(snp_report);
    for word in [20 + claims_size, 1, REPORT_TYPE_SNP, HASH_SHA256, claims_size] {
        out.extend_from_slice(&u32::to_le_bytes(word));
    }
    out.extend_from_slice(claims_json);
    Ok(out)
}

/// A parsed report, borrowing from the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HclReport<'a> {
    /// 1 or 2.
    pub header_version: u32,
    /// 1 key release, 2 attestation key certificate, 3 wrapped key.
    pub request_type: u32,
    /// The SNP report's 1184 bytes.
    pub snp_report: &'a [u8],
    /// 1 SHA-256, 2 SHA-384, 3 SHA-512.
    pub hash_type: u32,
    /// The claims' bytes as hashed.
    pub claims: &'a [u8],
}

impl<'a> HclReport<'a> {
    /// Parses a report of an SNP machine; zero padding behind the report is ignored.
    ///
    /// # Errors
    /// [`HclError::Truncated`] or [`HclError::Field`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HclError> {
        let (header_version, request_type, total) = parse_header(bytes)?;
        let whole = bytes.get(..total).ok_or(HclError::Truncated("report size exceeds the bytes given"))?;
        let snp_report =
            slice(whole, REPORT_OFFSET, SNP_REPORT_SIZE).ok_or(HclError::Truncated("hardware report"))?;
        let mut block = Cursor::new(whole.get(REQUEST_OFFSET..).unwrap_or_default());
        let mut word = || block.le32().ok_or(HclError::Truncated("request data"));
        let (data_size, version, report_type, hash_type, claims_size) =
            (word()?, word()?, word()?, word()?, word()?);
        require("request data version", version, version == 1)?;
        require("report type", report_type, report_type == REPORT_TYPE_SNP)?;
        require("claims size", claims_size, CLAIMS_OFFSET.checked_add(size(claims_size)) == Some(total))?;
        require("data size", data_size, claims_size.checked_add(20) == Some(data_size))?;
        hash_of(hash_type)?;
        let claims = whole.get(CLAIMS_OFFSET..).unwrap_or_default();
        Ok(Self { header_version, request_type, snp_report, hash_type, claims })
    }

    /// Checks that the hardware report's REPORT_DATA is the hash of the claims, its unused rest zero.
    ///
    /// # Errors
    /// [`HclError::NotBound`].
    pub fn verify_binding(&self) -> Result<(), HclError> {
        check_binding(self.snp_report, self.claims, self.hash_type)
    }

    /// The claims, read. Unknown members are ignored: older firmware has others.
    ///
    /// # Errors
    /// [`HclError::Claims`].
    pub fn runtime_claims(&self) -> Result<RuntimeClaims, HclError> {
        serde_json::from_slice(self.claims).map_err(|error| HclError::Claims(error.to_string()))
    }
}

fn parse_header(bytes: &[u8]) -> Result<(u32, u32, usize), HclError> {
    let mut header = Cursor::new(bytes);
    let signature: [u8; 4] = header.array().ok_or(HclError::Truncated("header"))?;
    require("signature", u32::from_le_bytes(signature), signature == SIGNATURE)?;
    let mut word = || header.le32().ok_or(HclError::Truncated("header"));
    let (version, total, request_type, status) = (word()?, word()?, word()?, word()?);
    require("header version", version, matches!(version, 1 | 2))?;
    require("request type", request_type, matches!(request_type, 1..=3))?;
    require("status", status, status == 0)?;
    require("report size", total, size(total) >= CLAIMS_OFFSET)?;
    Ok((version, request_type, size(total)))
}

fn require(field: &'static str, value: u32, good: bool) -> Result<(), HclError> {
    if good { Ok(()) } else { Err(HclError::Field { field, value }) }
}

fn hash_of(hash_type: u32) -> Result<&'static Algorithm, HclError> {
    match hash_type {
        1 => Ok(&SHA256),
        2 => Ok(&SHA384),
        3 => Ok(&SHA512),
        value => Err(HclError::Field { field: "hash type", value }),
    }
}

fn check_binding(snp_report: &[u8], claims: &[u8], hash_type: u32) -> Result<(), HclError> {
    let hash = digest(hash_of(hash_type)?, claims);
    let report_data = slice(snp_report, REPORT_DATA_OFFSET, 64).ok_or(HclError::Truncated("report_data"))?;
    let (head, rest) = report_data.split_at_checked(hash.as_ref().len()).ok_or(HclError::NotBound)?;
    if head != hash.as_ref() || rest.iter().any(|byte| *byte != 0) {
        return Err(HclError::NotBound);
    }
    Ok(())
}

/// What the runtime claims say.
#[derive(Clone, Debug, Deserialize)]
pub struct RuntimeClaims {
    /// Public keys of the vTPM.
    #[serde(default)]
    pub keys: Vec<RuntimeKey>,
    /// The VM's configuration.
    #[serde(rename = "vm-configuration", default)]
    pub vm_configuration: serde_json::Map<String, serde_json::Value>,
    /// NV 0x01400002 at the time of the report, hex.
    #[serde(rename = "user-data", default)]
    pub user_data: Option<String>,
}

/// One key of the claims.
#[derive(Clone, Debug, Deserialize)]
pub struct RuntimeKey {
    /// `HCLAkPub` or `HCLEkPub`.
    #[serde(default)]
    pub kid: String,
    /// Key type; `RSA`.
    #[serde(default)]
    pub kty: String,
    /// Modulus, base64url.
    #[serde(default)]
    pub n: String,
    /// Public exponent, base64url.
    #[serde(default)]
    pub e: String,
}

impl RuntimeClaims {
    /// The RSA key of that id, when there is exactly one.
    pub fn key(&self, kid: &str) -> Option<RsaPublic> {
        let mut found = self.keys.iter().filter(|key| key.kid == kid && key.kty == "RSA");
        let key = found.next()?;
        if found.next().is_some() {
            return None;
        }
        RsaPublic::from_jwk(&key.n, &key.e)
    }

    /// The attestation key that signs the vTPM's quotes.
    pub fn attestation_key(&self) -> Option<RsaPublic> {
        self.key("HCLAkPub")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcr::sha256;

    fn snp_report(claims: &[u8]) -> Vec<u8> {
        let mut report = vec![7; SNP_REPORT_SIZE];
        report[0x50..0x70].copy_from_slice(&sha256(claims));
        report[0x70..0x90].fill(0);
        report
    }

    #[test]
    fn built_report_reads_back_and_is_bound() {
        let claims = br#"{"keys":[],"user-data":"00"}"#;
        let bytes = build(&snp_report(claims), claims).unwrap();
        let mut padded = bytes.clone();
        padded.resize(2048, 0);
        let report = HclReport::parse(&padded).unwrap();
        assert_eq!((report.header_version, report.request_type, report.claims), (2, 2, claims.as_slice()));
        report.verify_binding().unwrap();
        assert_eq!(report.runtime_claims().unwrap().user_data.as_deref(), Some("00"));
    }

    #[test]
    fn largest_claims_fill_the_nv_index() {
        let claims = vec![b' '; MAX_CLAIMS];
        assert_eq!(build(&snp_report(&claims), &claims).unwrap().len(), MAX_REPORT);
        let longer = vec![b' '; MAX_CLAIMS + 1];
        assert_eq!(build(&snp_report(&longer), &longer), Err(HclError::ClaimsTooLong(813)));
    }

    #[test]
    fn claims_exchanged_under_a_genuine_report_are_refused() {
        let claims = br#"{"keys":[]}"#;
        let mut bytes = build(&snp_report(claims), claims).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(HclReport::parse(&bytes).unwrap().verify_binding(), Err(HclError::NotBound));
        assert_eq!(build(&snp_report(b"other"), claims), Err(HclError::NotBound));
    }

    #[test]
    fn data_smuggled_into_the_unused_half_of_report_data_is_refused() {
        let claims = br#"{"keys":[]}"#;
        let mut report = snp_report(claims);
        report[0x8f] = 1;
        assert_eq!(build(&report, claims), Err(HclError::NotBound));
    }

    #[test]
    fn lying_sizes_are_refused() {
        let claims = br#"{"keys":[]}"#;
        let good = build(&snp_report(claims), claims).unwrap();
        for offset in [0, 4, 8, 12, 16, 1216, 1220, 1224, 1228, 1232] {
            let mut bad = good.clone();
            bad[offset] ^= 0x40;
            assert!(HclReport::parse(&bad).is_err(), "offset {offset}");
        }
        assert!(HclReport::parse(&good[..good.len() - 1]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1400)) {
            let _ = HclReport::parse(&bytes);
        }
    }
}
