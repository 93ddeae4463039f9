//! Evidence recorded elsewhere: a VLEK of a cloud provider, and the reports inside Azure's HCL reports.

use snp::{CertChain, Crls, Product, SigningKey, TrustAnchors, UnixTime};

use crate::support::{Evidence, NOW, vector};

/// Where the report stands in an HCL report, behind its header of 32 bytes.
const HCL_REPORT: std::ops::Range<usize> = 0x20..0x20 + 0x4A0;

#[test]
fn a_vlek_report_verifies_at_a_date_within_its_certificate() {
    const WITHIN: UnixTime = UnixTime(1_750_000_000); // 2025-06-15
    let files = ["milan-vlek-report.bin", "milan-vlek.der", "milan-asvk-chain.pem"].map(vector);
    let [Some(report), Some(leaf), Some(authorities)] = files else { return };
    let authorities = snp::chain::pem_to_der(&authorities).unwrap();
    let chain = CertChain::from_der(&leaf, &authorities[0], &authorities[1]).unwrap();
    let verify = |now| snp::verify(&report, &chain, &TrustAnchors::amd(), &Crls::default(), now);
    let verified = verify(WITHIN).unwrap();
    assert_eq!(verified.signing_key(), SigningKey::Vlek);
    assert_eq!(verified.csp_id(), Some("CN=cc-us-east-2.amazonaws.com"));
    assert_eq!(verified.chip_id(), None);
    assert_eq!(verified.report().vmpl, 1);
    assert_eq!(verify(NOW).unwrap_err().code(), "CertificateExpired");
    let asked = |leaf: &[u8], ask: &[u8]| {
        let chain = CertChain::from_der(leaf, ask, &authorities[1]).unwrap();
        snp::verify(&report, &chain, &TrustAnchors::amd(), &Crls::default(), WITHIN).unwrap_err().code()
    };
    assert_eq!(asked(&leaf, snp::amd_ask_der(Product::Milan)), "CertificateIssuerWrong");
}

#[test]
fn reports_inside_azure_s_hcl_reports_verify() {
    let cases = [
        (Product::Milan, "azure-milan-hcl-report.bin", "azure-milan-vcek.pem", 2),
        (Product::Genoa, "azure-genoa-hcl-report.bin", "azure-genoa-vcek.pem", 3),
    ];
    for (product, hcl, leaf, version) in cases {
        let (Some(hcl), Some(leaf)) = (vector(hcl), vector(leaf)) else { return };
        let leaf = snp::chain::pem_to_der(&leaf).unwrap().remove(0);
        let evidence = Evidence::amd(product, hcl[HCL_REPORT].to_vec(), leaf);
        let verified = evidence.verify().unwrap();
        assert_eq!(verified.report().version, version);
        assert!(verified.policy().smt_allowed() && !verified.policy().debug());
        let mut altered = evidence.clone();
        altered.report[0x50] ^= 1;
        assert_eq!(altered.refusal(), "ReportSignatureInvalid");
    }
}

/// A VCEK of another chip, or for another TCB, has another key.
#[test]
fn recorded_certificates_do_not_vouch_for_each_other() {
    let (Some(one), Some(two)) = (vector("milan-vcek.der"), vector("azure-milan-vcek.pem")) else { return };
    let two = snp::chain::pem_to_der(&two).unwrap().remove(0);
    for leaf in [one, two] {
        let evidence = Evidence { leaf, ..Evidence::milan() };
        assert_eq!(evidence.refusal(), "ReportSignatureInvalid");
    }
}
