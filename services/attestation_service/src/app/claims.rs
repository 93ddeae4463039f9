//! The claims that a verified report and the data that it binds give.
//!
//! Source: the claim-sets page of the Azure Attestation documentation for `x-ms-*`; `x-casemate-*` are ours.

use public_api::attestation::{
    CLAIM_CHIP_ID, CLAIM_NONCE_SOURCE, CLAIM_PRODUCT, CLAIM_REFERENCE, CLAIM_TRUST_ROOT, CLAIM_TRUST_ROOT_ID,
    Claims,
};
use public_api::encoding::to_hex;
use serde_json::Value;
use snp::VerifiedReport;

use super::request::Evidence;

/// Claim: which key signed the report, `VCEK` or `VLEK`.
pub const CLAIM_SIGNING_KEY: &str = "x-casemate-signing-key";
/// Claim: memory was checked for aliases since the platform's last reset.
pub const CLAIM_ALIAS_CHECK: &str = "x-casemate-alias-check-complete";
/// Claim: security patch level of the FMC; Turin and later.
pub const CLAIM_FMC_SVN: &str = "x-casemate-fmc-svn";

/// Where the request's nonce comes from, as the token says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceSource {
    /// Issued by this service, bound by the report, presented for the first time.
    Server,
    /// The client's own.
    Client,
    /// There is none.
    None,
}

impl NonceSource {
    /// The claim's value.
    pub fn name(self) -> &'static str {
        match self {
            NonceSource::Server => "server",
            NonceSource::Client => "client",
            NonceSource::None => "none",
        }
    }
}

/// All claims about the evidence; times, ids and the nonce itself are the token's.
pub fn of_evidence(
    verified: &VerifiedReport,
    evidence: &Evidence,
    reference: Option<&str>,
    nonce: NonceSource,
) -> Claims {
    let mut claims = Claims::new();
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    put("x-ms-ver", "1.0".into());
    put("x-ms-attestation-type", "sevsnpvm".into());
    put(CLAIM_NONCE_SOURCE, nonce.name().into());
    if let Some(runtime) = &evidence.runtime_data {
        put("x-ms-runtime", runtime.shown.clone());
    }
    if let Some(init_time) = &evidence.init_time_data {
        put("x-ms-inittime", init_time.shown.clone());
    }
    if let Some(reference) = reference {
        put(CLAIM_REFERENCE, reference.into());
    }
    of_report(verified, &mut claims);
    of_platform(verified, &mut claims);
    claims
}

fn of_report(verified: &VerifiedReport, claims: &mut Claims) {
    let report = verified.report();
    let tcb = report.reported_tcb.decode(verified.product());
    let mut put = |name: &str, value: Value| claims.insert(format!("x-ms-sevsnpvm-{name}"), value);
    put("authorkeydigest", to_hex(report.author_key_digest).into());
    put("idkeydigest", to_hex(report.id_key_digest).into());
    put("launchmeasurement", to_hex(report.measurement).into());
    put("reportdata", to_hex(report.report_data).into());
    put("hostdata", to_hex(report.host_data).into());
    put("reportid", to_hex(report.report_id).into());
    put("familyId", to_hex(report.family_id).into());
    put("imageId", to_hex(report.image_id).into());
    put("guestsvn", report.guest_svn.into());
    put("bootloader-svn", tcb.boot_loader.into());
    put("tee-svn", tcb.tee.into());
    put("snpfw-svn", tcb.snp.into());
    put("microcode-svn", tcb.microcode.into());
    put("is-debuggable", report.policy.debug().into());
    put("migration-allowed", report.policy.migrate_ma().into());
    put("smt-allowed", report.policy.smt_allowed().into());
    put("vmpl", report.vmpl.into());
}

fn of_platform(verified: &VerifiedReport, claims: &mut Claims) {
    let report = verified.report();
    let platform = report.platform_info;
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    put(CLAIM_TRUST_ROOT, verified.root().kind().into());
    put(CLAIM_TRUST_ROOT_ID, verified.root().id().to_string().into());
    put(CLAIM_PRODUCT, verified.product().name().into());
    // Under a VCEK the certificate names the chip also where the report hides it.
    let chip_id = verified.chip_id().map_or("masked".to_owned(), to_hex);
    put(CLAIM_CHIP_ID, chip_id.into());
    put(CLAIM_SIGNING_KEY, verified.signing_key().to_string().into());
    put(CLAIM_ALIAS_CHECK, platform.alias_check_complete().into());
    put("x-casemate-ciphertext-hiding", platform.ciphertext_hiding().into());
    put("x-casemate-smt-enabled", platform.smt_enabled().into());
    put("x-casemate-tsme-enabled", platform.tsme_enabled().into());
    put("x-casemate-ecc-enabled", platform.ecc_enabled().into());
    put("x-casemate-rapl-disabled", platform.rapl_disabled().into());
    put("x-casemate-reported-tcb", report.reported_tcb.to_string().into());
    put("x-casemate-current-tcb", report.current_tcb.to_string().into());
    put("x-casemate-committed-tcb", report.committed_tcb.to_string().into());
    put("x-casemate-launch-tcb", report.launch_tcb.to_string().into());
    if let Some(fmc) = report.reported_tcb.decode(verified.product()).fmc {
        put(CLAIM_FMC_SVN, fmc.into());
    }
}
