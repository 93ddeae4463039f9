//! The key distribution service's double.

use snp::{CertChain, Crls, Report, UnixTime};

use crate::processor::{POLICY, Processor, now};

fn chip(processor: &Processor) -> String {
    let report = Report::parse(&processor.launch(POLICY).evidence([0; 64]).0).unwrap();
    hex::encode(report.chip_id)
}

#[test]
fn certificates_are_served_as_by_amd() {
    let processor = Processor::start();
    let chain = processor.launch(POLICY).chain();
    let address = format!("/vcek/v1/Milan/{}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219", chip(&processor));
    assert_eq!(processor.get(&address), (200, chain.leaf_der().to_vec()));
    let unpadded = address.replace("=04", "=4").replace("=00", "=0");
    assert_eq!(processor.get(&unpadded), (200, chain.leaf_der().to_vec()));
    let (code, pem) = processor.get("/vcek/v1/Milan/cert_chain");
    let authorities = snp::chain::pem_to_der(&pem).unwrap();
    assert_eq!((code, authorities), (200, vec![chain.ask_der().to_vec(), chain.ark_der().to_vec()]));
}

#[test]
fn an_older_tcb_has_a_certificate_and_a_newer_one_none() {
    let processor = Processor::start();
    let chain = processor.launch(POLICY).chain();
    let address =
        |snp: u8| format!("/vcek/v1/Milan/{}?blSPL=4&teeSPL=0&snpSPL={snp}&ucodeSPL=219", chip(&processor));
    let (code, older) = processor.get(&address(23));
    assert_eq!(code, 200);
    let older = CertChain::from_der(&older, chain.ask_der(), chain.ark_der()).unwrap();
    let verified = snp::verify_chain(&older, &processor.anchors(), &Crls::default(), now()).unwrap();
    assert_eq!(verified.extensions().tcb.snp, 23);
    assert_eq!(processor.get(&address(25)).0, 404);
}

#[test]
fn what_is_not_there_is_not_found() {
    let processor = Processor::start();
    let chip = chip(&processor);
    let other = "00".repeat(64);
    for path in [
        "/".to_owned(),
        "/vcek/v1/Genoa/cert_chain".to_owned(),
        "/vcek/v1/Genoa/crl".to_owned(),
        "/vcek/v1/milan/cert_chain".to_owned(),
        "/vlek/v1/Milan/cert".to_owned(),
        format!("/vcek/v1/Milan/{other}?blSPL=4"),
        format!("/vcek/v1/Genoa/{chip}?blSPL=4"),
        format!("/vcek/v1/Milan/{}?blSPL=4", &chip[2..]),
    ] {
        assert_eq!(processor.get(&path).0, 404, "{path}");
    }
    for query in ["blSPL=256", "blSPL=-1", "blSPL=x", "blSPL=", "color=1", "blSPL=1&blSPL=2"] {
        assert_eq!(processor.get(&format!("/vcek/v1/Milan/{chip}?{query}")).0, 400, "{query}");
    }
}

#[test]
fn turin_names_its_chips_by_eight_bytes() {
    let processor = Processor::with(
        "product = \"Turin\"\n[tcb]\nfmc = 1\nboot_loader = 1\ntee = 1\nsnp = 2\nmicrocode = 71",
    );
    let chip = &chip(&processor)[..16];
    let address = format!("/vcek/v1/Turin/{chip}?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=02&ucodeSPL=71");
    let (code, leaf) = processor.get(&address);
    assert_eq!((code, leaf), (200, processor.launch(POLICY).chain().leaf_der().to_vec()));
}

#[test]
fn health_says_that_this_root_is_for_development() {
    let processor = Processor::start();
    let (code, body) = processor.get("/health");
    let body = String::from_utf8(body).unwrap();
    assert_eq!(code, 200);
    assert!(body.contains("\"trustRoot\":\"development\""), "{body}");
    let chain = processor.launch(POLICY).chain();
    let verified = snp::verify_chain(&chain, &processor.anchors(), &Crls::default(), UnixTime(now().0));
    assert!(body.contains(&verified.unwrap().root().id().to_string()), "{body}");
}
