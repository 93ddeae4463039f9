//! HCL attestation reports.

use vtpm::hcl::{HclReport, build};

use crate::Target;
use crate::support::data;

pub(crate) const TARGET: Target = Target {
    name: "hcl_report",
    run,
    seeds,
    words: &[b"HCLA", b"\"HCLAkPub\"", b"\"kty\":\"RSA\"", b"\"vm-configuration\":{", b"\"user-data\":\"\""],
    max_len: 4096,
};

/// An input is a report; one that is well formed is bound anew to its claims, so that more than one can be.
fn run(bytes: &[u8]) {
    let Ok(report) = HclReport::parse(bytes) else { return };
    assert_eq!(report.snp_report.len(), 1184);
    let _ = report.runtime_claims().map(|claims| claims.attestation_key());
    let bound = report.verify_binding().is_ok();
    let mut snp_report = report.snp_report.to_vec();
    snp_report[0x50..0x70].copy_from_slice(&vtpm::pcr::sha256(report.claims));
    snp_report[0x70..0x90].fill(0);
    let Ok(built) = build(&snp_report, report.claims) else {
        assert!(!bound || report.hash_type != 1, "what is bound can be built");
        return;
    };
    let again = HclReport::parse(&built).expect("our own report");
    assert_eq!((again.claims, again.snp_report), (report.claims, snp_report.as_slice()));
    again.verify_binding().expect("our own report is bound");
    if bound && report.hash_type == 1 {
        assert_eq!(snp_report, report.snp_report, "one REPORT_DATA for one text");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let claims = br#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","n":"AQAB","e":"AQAB"}],"vm-configuration":{}}"#;
    let mut report = vec![0; 1184];
    report[0x50..0x70].copy_from_slice(&vtpm::pcr::sha256(claims));
    let own = build(&report, claims).expect("our own report");
    vec![data("engines/vtpm/tests/data/hcl-report-snp.bin"), own]
}
