//! Its evidence verifies under its own root, with our verifier and with the crate `sev`, and nowhere else.

use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;
use snp::{CertChain, CrlScope, Crls, Revocation, SigningKey, TrustAnchors, TrustRoot};

use crate::processor::{POLICY, Processor, now};

const TURIN: &str = "product = \"Turin\"";
const GENOA: &str = "product = \"Genoa\"";

#[test]
fn our_verifier_accepts_its_evidence_under_its_root_and_only_there() {
    for config in ["", GENOA, TURIN] {
        let processor = Processor::with(config);
        let guest = processor.launch(POLICY);
        let (report, pem) = guest.evidence([5; 64]);
        let chain = CertChain::from_pem(pem.as_bytes()).unwrap();
        let verified = snp::verify(&report, &chain, &processor.anchors(), &Crls::default(), now()).unwrap();
        assert!(matches!(verified.root(), TrustRoot::Development(_)));
        assert_eq!(verified.root().kind(), "development");
        assert_eq!(verified.report().report_data, [5; 64]);
        assert_eq!(verified.report().measurement, guest.launch_digest);
        assert_eq!(verified.report().host_data, [9; 32]);
        let amd = TrustAnchors::amd();
        let refused = snp::verify(&report, &chain, &amd, &Crls::default(), now()).unwrap_err();
        assert_eq!(refused.explain().code, "RootNotTrusted");
    }
}

#[test]
fn the_independent_crate_sev_accepts_its_evidence_given_its_root() {
    for config in ["", GENOA, TURIN] {
        let processor = Processor::with(config);
        let (report, pem) = processor.launch(POLICY).evidence([5; 64]);
        let chain = sev_chain(&pem);
        chain.verify().expect("the chain");
        let mut bad = report.clone();
        let good = AttestationReport::from_bytes(&report).expect("the report");
        (&chain, &good).verify().expect("the report under the chain");
        bad[0x50] ^= 1;
        let bad = AttestationReport::from_bytes(&bad).expect("still a report");
        assert!((&chain, &bad).verify().is_err());
    }
}

const VLEK: &str = "[vlek]\ncsp_id = \"CN=provider.example\"";

#[test]
fn every_version_of_the_report_verifies_everywhere() {
    for (version, product) in [(2, ""), (3, GENOA), (4, ""), (5, TURIN), (5, GENOA)] {
        let processor = Processor::with(&format!("report_version = {version}\n{product}"));
        let (report, pem) = processor.launch(POLICY).evidence([5; 64]);
        let chain = CertChain::from_pem(pem.as_bytes()).unwrap();
        let verified = snp::verify(&report, &chain, &processor.anchors(), &Crls::default(), now()).unwrap();
        assert_eq!(verified.report().version, version);
        assert_eq!(verified.silicon().is_some(), version >= 3);
        assert_eq!(verified.report().launch_mit_vector, (version == 5).then_some(0));
        let theirs = AttestationReport::from_bytes(&report).expect("the report");
        (&sev_chain(&pem), &theirs).verify().expect("the report under the chain");
    }
}

#[test]
fn a_masked_chip_id_is_in_the_certificate_only() {
    let processor = Processor::with("mask_chip_id = true");
    let (report, pem) = processor.launch(POLICY).evidence([5; 64]);
    let chain = CertChain::from_pem(pem.as_bytes()).unwrap();
    let verified = snp::verify(&report, &chain, &processor.anchors(), &Crls::default(), now()).unwrap();
    assert!(verified.chip_id_masked());
    assert_eq!(verified.chip_id().map(<[u8]>::len), Some(64));
}

#[test]
fn a_provider_s_key_signs_where_it_is_loaded() {
    for (config, product) in [("", "Milan"), (TURIN, "Turin")] {
        for masked in [false, true] {
            let config = format!("mask_chip_id = {masked}\n{config}\n{VLEK}");
            let processor = Processor::with(&config);
            let (report, pem) = processor.launch(POLICY).evidence([5; 64]);
            let chain = CertChain::from_pem(pem.as_bytes()).unwrap();
            let anchors = processor.anchors();
            let (code, list) = processor.get(&format!("/vlek/v1/{product}/crl"));
            assert_eq!(code, 200);
            let mut crls = Crls::new(Revocation::Required);
            crls.add_for(CrlScope::Vlek, &list, &anchors).unwrap();
            let verified = snp::verify(&report, &chain, &anchors, &crls, now()).unwrap();
            assert_eq!(verified.signing_key(), SigningKey::Vlek);
            assert_eq!(verified.csp_id(), Some("CN=provider.example"));
            assert_eq!(verified.chip_id().is_none(), masked, "a masked id names no chip");
            let theirs = AttestationReport::from_bytes(&report).expect("the report");
            (&sev_chain(&pem), &theirs).verify().expect("the report under the chain");
            let (code, served) = processor.get(&format!("/vlek/v1/{product}/cert_chain"));
            let authorities = snp::chain::pem_to_der(&served).unwrap();
            assert_eq!((code, authorities), (200, vec![chain.ask_der().to_vec(), chain.ark_der().to_vec()]));
        }
    }
    let without = Processor::start();
    assert_eq!(without.get("/vlek/v1/Milan/cert_chain").0, 404);
}

fn sev_chain(pem: &str) -> Chain {
    let certificates: Vec<Certificate> = pem
        .split_inclusive("-----END CERTIFICATE-----\n")
        .map(|one| Certificate::from_pem(one.as_bytes()).unwrap())
        .collect();
    let [vek, ask, ark] = certificates.try_into().map_err(|_| "three certificates").unwrap();
    Chain { ca: ca::Chain { ark, ask }, vek }
}

#[test]
fn an_altered_report_is_refused() {
    let processor = Processor::start();
    let (mut report, pem) = processor.launch(POLICY).evidence([5; 64]);
    report[0x50] ^= 1;
    let chain = CertChain::from_pem(pem.as_bytes()).unwrap();
    let refused = snp::verify(&report, &chain, &processor.anchors(), &Crls::default(), now()).unwrap_err();
    assert_eq!(refused.code(), "ReportSignatureInvalid");
}

#[test]
fn evidence_of_another_installation_is_refused() {
    let ours = Processor::start();
    let theirs = Processor::fresh();
    let (report, pem) = theirs.launch(POLICY).evidence([5; 64]);
    let chain = CertChain::from_pem(pem.as_bytes()).unwrap();
    let refused = snp::verify(&report, &chain, &ours.anchors(), &Crls::default(), now()).unwrap_err();
    assert_eq!(refused.code(), "RootNotTrusted");
    // The same names everywhere: a leaf of theirs under our authorities is still theirs.
    let own = ours.launch(POLICY).chain();
    let mixed = CertChain::from_der(chain.leaf_der(), own.ask_der(), own.ark_der()).unwrap();
    let refused = snp::verify(&report, &mixed, &ours.anchors(), &Crls::default(), now()).unwrap_err();
    assert_eq!(refused.code(), "CertificateSignatureInvalid");
}

#[test]
fn an_older_tcb_is_visible_and_has_a_key_of_its_own() {
    const OLD: &str = "[tcb]\nboot_loader = 4\ntee = 0\nsnp = 20\nmicrocode = 211";
    let mut processor = Processor::start();
    let new = processor.launch(POLICY).chain();
    processor.restart(OLD);
    let (report, pem) = processor.launch(POLICY).evidence([5; 64]);
    let old = CertChain::from_pem(pem.as_bytes()).unwrap();
    let verified = snp::verify(&report, &old, &processor.anchors(), &Crls::default(), now()).unwrap();
    assert_eq!((verified.reported_tcb().snp, verified.reported_tcb().microcode), (20, 211));
    let refused = snp::verify(&report, &new, &processor.anchors(), &Crls::default(), now()).unwrap_err();
    assert_eq!(refused.code(), "ReportSignatureInvalid", "a report of the old TCB under the new one's key");
}

#[test]
fn another_chip_has_another_key() {
    let one = Processor::start();
    let two = Processor::with(&format!("chip_id = \"{}\"", "ab".repeat(64)));
    let (report, _) = one.launch(POLICY).evidence([5; 64]);
    let other = two.launch(POLICY).chain();
    let refused = snp::verify(&report, &other, &one.anchors(), &Crls::default(), now()).unwrap_err();
    assert_eq!(refused.code(), "ReportSignatureInvalid");
}

#[test]
fn the_debug_bit_is_visible() {
    let processor = Processor::start();
    let (report, pem) = processor.launch(POLICY | 1 << 19).evidence([5; 64]);
    let chain = CertChain::from_pem(pem.as_bytes()).unwrap();
    let verified = snp::verify(&report, &chain, &processor.anchors(), &Crls::default(), now()).unwrap();
    assert!(verified.policy().debug());
}

#[test]
fn its_revocation_list_is_its_own_and_goes_stale() {
    const MONTH: i64 = 31 * 86_400;
    let processor = Processor::start();
    let (report, pem) = processor.launch(POLICY).evidence([5; 64]);
    let chain = CertChain::from_pem(pem.as_bytes()).unwrap();
    let (_, list) = processor.get("/vcek/v1/Milan/crl");
    let anchors = processor.anchors();
    let mut crls = Crls::new(Revocation::Required);
    let root = crls.add(&list, &anchors).unwrap();
    snp::verify(&report, &chain, &anchors, &crls, now()).unwrap();
    let until = crls.fresh_until(root).unwrap();
    snp::verify(&report, &chain, &anchors, &crls, until).unwrap();
    let late = snp::UnixTime(now().0 + MONTH);
    let refused = snp::verify(&report, &chain, &anchors, &crls, late).unwrap_err();
    assert_eq!(refused.code(), "RevocationListNotCurrent");
    let early = snp::UnixTime(now().0 - 3_000);
    snp::verify(&report, &chain, &anchors, &crls, early).expect("a clock that is behind a little");
    assert!(Crls::default().add(&list, &TrustAnchors::amd()).is_err(), "no list of AMD's");
    let stranger = Processor::fresh();
    assert!(Crls::default().add(&list, &stranger.anchors()).is_err(), "no list of another installation's");
}
