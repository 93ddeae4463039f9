//! The launch document and everything that it binds, read once and checked against HOST_DATA.
//!
//! The host hands these files in and can change them at will; only what hashes to HOST_DATA's document counts.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use internal_api::launch::{LaunchDocument, ProvisioningData, sha256_hex};
use internal_api::paravisor::ParavisorConfig;
use sealed_disk::image::Manifest;
use serde::de::DeserializeOwned;
use snp::report::Report;
use uuid::Uuid;

use crate::failure::Stop;

/// The largest document that is read; a manifest has 67 bytes for each MiB of its image.
const MAX_DOCUMENT: u64 = 64 << 20;
const RULE: &str =
    "HOST_DATA is the SHA-256 of the launch document, which holds the digests of all that the VM starts from";

/// What the VM is launched with, checked.
pub struct Launch {
    /// The launch document's bytes.
    pub bytes: Vec<u8>,
    /// The same, parsed.
    pub document: LaunchDocument,
    /// The VM.
    pub vm_id: Uuid,
    /// The tenant's provisioning data.
    pub provisioning: ProvisioningData,
    /// PEM bundle of the two services.
    pub trust_bundle: String,
    /// The image.
    pub manifest: Manifest,
}

impl Launch {
    /// Reads all documents and checks those digests that the launch document holds. Whether the launch document itself is
    /// the one of this launch is for [`Launch::check_report`].
    pub fn read(config: &ParavisorConfig) -> Result<Self, Stop> {
        let bytes = read(&config.launch_document)?;
        let document: LaunchDocument = parse("launch document", &bytes)?;
        check_form(&document)?;
        let vm_id =
            Uuid::parse_str(&document.vm_id).map_err(|_| malformed("launch document", "vmId is no GUID"))?;
        let provisioning =
            bound("provisioningDigest", &config.provisioning_data, &document.provisioning_digest)?;
        let provisioning: ProvisioningData = parse("provisioning data", &provisioning)?;
        let trust = bound("trustBundleDigest", &config.trust_bundle, &document.trust_bundle_digest)?;
        let trust_bundle = String::from_utf8(trust).map_err(|_| malformed("trust bundle", "not PEM text"))?;
        let manifest = bound("imageDigest", &config.image_manifest, &document.image_digest)?;
        let manifest =
            Manifest::parse(&manifest).map_err(|error| malformed("image manifest", &error.to_string()))?;
        Ok(Self { bytes, document, vm_id, provisioning, trust_bundle, manifest })
    }

    /// Checks that the report speaks of this launch document, and for the level at which the paravisor runs.
    pub fn check_report(&self, report: &[u8]) -> Result<(), Stop> {
        let report =
            Report::parse(report).map_err(|error| malformed("attestation report", &error.to_string()))?;
        let expected = sha256_hex(&self.bytes);
        let host_data = hex::encode(report.host_data);
        if host_data != expected {
            return Err(Stop::refused(
                "LaunchDocumentMismatch",
                "HOST_DATA",
                expected,
                host_data,
                RULE,
                "the host handed in another launch document than the VM was launched with; start the VM again",
            ));
        }
        if report.vmpl != 0 {
            return Err(Stop::refused(
                "WrongVmpl",
                "VMPL",
                "0",
                report.vmpl.to_string(),
                "the paravisor's keys are bound to VMPL 0",
                "launch the paravisor at VMPL 0",
            ));
        }
        Ok(())
    }
}

fn check_form(document: &LaunchDocument) -> Result<(), Stop> {
    if document.version != 1 {
        return Err(malformed("launch document", "its version is not 1"));
    }
    if document.vm_id != document.vm_id.to_uppercase() {
        return Err(malformed("launch document", "vmId is not in upper case"));
    }
    let services = [&document.key_id, &document.attestation_url];
    for url in services.into_iter().chain(&document.first_key_id) {
        if !url.starts_with("https://") {
            return Err(malformed("launch document", "a service's address does not begin with https://"));
        }
    }
    Ok(())
}

/// Reads a file whose digest the launch document holds.
fn bound(claim: &str, path: &Path, expected: &str) -> Result<Vec<u8>, Stop> {
    let bytes = read(path)?;
    let actual = sha256_hex(&bytes);
    if actual == expected {
        return Ok(bytes);
    }
    Err(Stop::refused(
        "BoundDataReplaced",
        claim,
        expected,
        actual,
        RULE,
        "somebody on the host replaced this file on its way to the VM; start the VM again",
    ))
}

/// A document of bounded size.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Stop> {
    let doing = format!("reading {}", path.display());
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes));
    read.map_err(|error| Stop::io(&doing, &error))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(malformed(&path.display().to_string(), "it is longer than 64 MiB"));
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Stop> {
    serde_json::from_slice(bytes).map_err(|error| malformed(what, &error.to_string()))
}

/// A document that is not of the known form.
pub(crate) fn malformed(what: &str, why: &str) -> Stop {
    Stop::refused(
        "DocumentMalformed",
        what,
        "a document of the known form",
        why,
        "unknown or missing members are errors",
        "use components of the same release",
    )
}
