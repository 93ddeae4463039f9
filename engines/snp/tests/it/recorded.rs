//! Evidence recorded elsewhere: a VLEK of a cloud provider, and the reports inside Azure's HCL reports.

use snp::extensions::Owner;
use snp::{CertChain, Crls, Product, Report, SigningKey, TrustAnchors, TrustRoot, UnixTime};

use crate::support::{Evidence, NOW, data, vector};

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

/// What the crate `az-cvm-vtpm` carries: a chain, and an HCL report of another machine, whose VCEK is not there.
#[test]
fn a_chain_and_an_hcl_report_of_azure_s_everywhere() {
    let chain = CertChain::from_pem(&data("az-cvm-vtpm-certs.pem")).unwrap();
    let verified = snp::verify_chain(&chain, &TrustAnchors::amd(), &Crls::default(), NOW).unwrap();
    assert_eq!(*verified.root(), TrustRoot::Amd(Product::Milan));
    assert!(matches!(&verified.extensions().owner, Owner::Chip(id) if id.len() == 64));
    let mut altered = chain.ask_der().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let altered = CertChain::from_der(chain.leaf_der(), &altered, chain.ark_der()).unwrap();
    let refused = snp::verify_chain(&altered, &TrustAnchors::amd(), &Crls::default(), NOW).unwrap_err();
    assert_eq!(refused.code(), "CertificateSignatureInvalid");
    let hcl = data("../../../vtpm/tests/data/hcl-report-snp.bin");
    let report = Report::parse(&hcl[HCL_REPORT]).unwrap();
    assert_eq!((report.version, report.vmpl, report.product()), (2, 0, None));
    assert_eq!(report.encode()[..0x2A0], hcl[HCL_REPORT][..0x2A0]);
    for chain in [chain, Evidence::milan().chain()] {
        let refused =
            snp::verify(&hcl[HCL_REPORT], &chain, &TrustAnchors::amd(), &Crls::default(), NOW).unwrap_err();
        assert_eq!(refused.code(), "ReportSignatureInvalid", "the VCEK of another machine");
    }
}

/// The Turin certificate that the crate `sev` carries; its report is not there.
#[test]
fn a_turin_chain_verifies_everywhere() {
    let (ask, ark) = (snp::amd_ask_der(Product::Turin), snp::amd_ark_der(Product::Turin));
    let leaf = data("sev-turin-vcek.der");
    let verify = |leaf: &[u8], ask: &[u8], ark: &[u8]| {
        let chain = CertChain::from_der(leaf, ask, ark).unwrap();
        snp::verify_chain(&chain, &TrustAnchors::amd(), &Crls::default(), NOW).map_err(|error| error.code())
    };
    let verified = verify(&leaf, ask, ark).unwrap();
    assert_eq!(verified.extensions().product, Product::Turin);
    assert!(verified.extensions().tcb.fmc.is_some());
    assert!(matches!(&verified.extensions().owner, Owner::Chip(id) if id.len() == 8));
    let mut altered = leaf.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(verify(&altered, ask, ark).unwrap_err(), "CertificateSignatureInvalid");
    let milan = snp::amd_ask_der(Product::Milan);
    assert_eq!(verify(&leaf, milan, snp::amd_ark_der(Product::Milan)).unwrap_err(), "CertificateIssuerWrong");
}
