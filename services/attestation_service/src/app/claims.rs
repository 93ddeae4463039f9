//! The claims that a verified report and the data that it binds give.
//!
//! Source: the claim-sets page of the Azure Attestation documentation for `x-ms-*`; `x-casemate-*` are ours.

use public_api::attestation::{
    CLAIM_CHIP_ID, CLAIM_NONCE_SOURCE, CLAIM_PRODUCT, CLAIM_REFERENCE, CLAIM_TRUST_ROOT, CLAIM_TRUST_ROOT_ID,
    Claims,
};
use serde_json::{Value, json};
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
    put("x-ms-ver", json!("1.0"));
    put("x-ms-attestation-type", json!("sevsnpvm"));
    put(CLAIM_NONCE_SOURCE, json!(nonce.name()));
    if let Some(runtime) = &evidence.runtime_data {
        put("x-ms-runtime", runtime.shown.clone());
    }
    if let Some(init_time) = &evidence.init_time_data {
        put("x-ms-inittime", init_time.shown.clone());
    }
    if let Some(reference) = reference {
        put(CLAIM_REFERENCE, json!(reference));
    }
    of_report(verified, &mut claims);
    of_platform(verified, &mut claims);
    claims
}

fn of_report(verified: &VerifiedReport, claims: &mut Claims) {
    let report = verified.report();
    let tcb = report.reported_tcb.decode(verified.product());
    let mut put = |name: &str, value: Value| claims.insert(format!("x-ms-sevsnpvm-{name}"), value);
    put("authorkeydigest", json!(hex::encode(report.author_key_digest)));
    put("idkeydigest", json!(hex::encode(report.id_key_digest)));
    put("launchmeasurement", json!(hex::encode(report.measurement)));
    put("reportdata", json!(hex::encode(report.report_data)));
    put("hostdata", json!(hex::encode(report.host_data)));
    put("reportid", json!(hex::encode(report.report_id)));
    put("familyId", json!(hex::encode(report.family_id)));
    put("imageId", json!(hex::encode(report.image_id)));
    put("guestsvn", json!(report.guest_svn));
    put("bootloader-svn", json!(tcb.boot_loader));
    put("tee-svn", json!(tcb.tee));
    put("snpfw-svn", json!(tcb.snp));
    put("microcode-svn", json!(tcb.microcode));
    put("is-debuggable", json!(report.policy.debug()));
    put("migration-allowed", json!(report.policy.migrate_ma()));
    put("smt-allowed", json!(report.policy.smt_allowed()));
    put("vmpl", json!(report.vmpl));
}

fn of_platform(verified: &VerifiedReport, claims: &mut Claims) {
    let report = verified.report();
    let platform = report.platform_info;
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    put(CLAIM_TRUST_ROOT, json!(verified.root().kind()));
    put(CLAIM_TRUST_ROOT_ID, json!(verified.root().id().to_string()));
    put(CLAIM_PRODUCT, json!(verified.product().name()));
    // Under a VCEK the certificate names the chip also where the report hides it.
    let chip_id = verified.chip_id().map_or("masked".to_owned(), hex::encode);
    put(CLAIM_CHIP_ID, json!(chip_id));
    put(CLAIM_SIGNING_KEY, json!(verified.signing_key().to_string()));
    put(CLAIM_ALIAS_CHECK, json!(platform.alias_check_complete()));
    put("x-casemate-ciphertext-hiding", json!(platform.ciphertext_hiding()));
    put("x-casemate-smt-enabled", json!(platform.smt_enabled()));
    put("x-casemate-tsme-enabled", json!(platform.tsme_enabled()));
    put("x-casemate-ecc-enabled", json!(platform.ecc_enabled()));
    put("x-casemate-rapl-disabled", json!(platform.rapl_disabled()));
    put("x-casemate-reported-tcb", json!(report.reported_tcb.to_string()));
    put("x-casemate-current-tcb", json!(report.current_tcb.to_string()));
    put("x-casemate-committed-tcb", json!(report.committed_tcb.to_string()));
    put("x-casemate-launch-tcb", json!(report.launch_tcb.to_string()));
    if let Some(fmc) = report.reported_tcb.decode(verified.product()).fmc {
        put(CLAIM_FMC_SVN, json!(fmc));
    }
}
