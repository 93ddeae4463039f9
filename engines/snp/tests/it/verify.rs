//! Reports of real machines verify; each altered twin is refused for its own reason.

use snp::{CertChain, ChainError, Crls, Product, SigningKey, Silicon, TrustAnchors, TrustRoot, UnixTime};

use crate::support::{Evidence, vector};

#[test]
fn a_real_milan_report_verifies() {
    let verified = Evidence::milan().verify().unwrap();
    assert_eq!(*verified.root(), TrustRoot::Amd(Product::Milan));
    assert_eq!(verified.product(), Product::Milan);
    assert_eq!(verified.signing_key(), SigningKey::Vcek);
    assert_eq!(verified.report().version, 2);
    assert_eq!(verified.policy().0, 0x3_0000);
    assert_eq!(verified.reported_tcb().microcode, 0x73);
    assert_eq!(verified.chip_id().map(<[u8]>::len), Some(64));
}

#[test]
fn recorded_reports_verify() {
    let cases = [
        (Product::Milan, "milan-report.bin", "milan-vcek.der", 3, "db18000000000004"),
        (Product::Genoa, "genoa-report.bin", "genoa-vcek.der", 5, "541900000000000a"),
        (Product::Turin, "turin-report.bin", "turin-vcek.der", 5, "4700000002000100"),
    ];
    for (product, report, leaf, version, tcb) in cases {
        let (Some(report), Some(leaf)) = (vector(report), vector(leaf)) else {
            return;
        };
        let evidence = Evidence::amd(product, report, leaf);
        let verified = evidence.verify().unwrap();
        assert_eq!(*verified.root(), TrustRoot::Amd(product));
        assert_eq!(verified.report().version, version);
        assert_eq!(verified.report().product(), Some(product));
        assert_eq!(verified.report().reported_tcb.to_string(), tcb);
        assert_eq!(verified.silicon().map(Silicon::product), Some(product));
        assert_eq!((verified.report().vmpl, verified.chip_id_masked()), (0, false));
        for at in [0x50, 0x90, 0x1A0, 0x29F, 0x2A0] {
            let mut altered = evidence.clone();
            altered.report[at] ^= 1;
            assert_eq!(altered.refusal(), "ReportSignatureInvalid", "{product} {at:#x}");
        }
        let late = Evidence { now: UnixTime(2_000_000_000), ..evidence.clone() };
        assert_eq!(late.refusal(), "CertificateExpired", "{product}");
        let mixed = Evidence { leaf: Evidence::milan().leaf, ..evidence };
        assert!(mixed.verify().is_err(), "the VCEK of another chip, {product}");
    }
}

#[test]
fn any_flipped_bit_of_the_signed_range_is_seen() {
    let good = Evidence::milan();
    for at in (0..0x2A0).step_by(13).chain([0x29F]) {
        let mut bad = good.clone();
        bad.report[at] ^= 1;
        let code = bad.refusal();
        let expected = if (0x34..0x38).contains(&at) {
            "ReportSignatureAlgorithmWrong"
        } else {
            "ReportSignatureInvalid"
        };
        assert_eq!(code, expected, "byte {at:#x}");
    }
}

#[test]
fn an_altered_signature_is_refused() {
    for (at, code) in [
        (0x2A0, "ReportSignatureInvalid"),
        (0x2E8, "ReportSignatureInvalid"),
        (0x2E7, "ReportSignatureMalformed"),
        (0x32F, "ReportSignatureMalformed"),
        (0x330, "ReportSignatureMalformed"),
        (0x49F, "ReportSignatureMalformed"),
    ] {
        let mut bad = Evidence::milan();
        bad.report[at] ^= 1;
        assert_eq!(bad.refusal(), code, "byte {at:#x}");
    }
}

#[test]
fn a_report_of_another_length_is_refused() {
    let good = Evidence::milan();
    for len in [0, 1, 0x2A0, 1183, 1185, 4000] {
        let mut bad = good.clone();
        bad.report.resize(len, 0);
        assert_eq!(bad.refusal(), "ReportSizeWrong", "{len} bytes");
    }
}

#[test]
fn dates_are_checked_against_the_given_time() {
    let mut evidence = Evidence::milan();
    evidence.now = UnixTime(1_680_549_823); // the VCEK's first second
    evidence.verify().unwrap();
    evidence.now = UnixTime(1_680_549_822);
    assert_eq!(evidence.refusal(), "CertificateNotYetValid");
    evidence.now = UnixTime(1_901_474_623); // its last
    evidence.verify().unwrap();
    evidence.now = UnixTime(1_901_474_624);
    assert_eq!(evidence.refusal(), "CertificateExpired");
    evidence.now = UnixTime(-1);
    assert_eq!(evidence.refusal(), "CertificateNotYetValid");
}

#[test]
fn a_chain_of_another_product_is_refused() {
    let mut evidence = Evidence::milan();
    evidence.ask = snp::amd_ask_der(Product::Genoa).to_vec();
    assert_eq!(evidence.refusal(), "CertificateIssuerWrong");
    evidence.ark = snp::amd_ark_der(Product::Genoa).to_vec();
    assert_eq!(evidence.refusal(), "CertificateIssuerWrong");
}

#[test]
fn a_root_that_is_not_pinned_is_refused() {
    let mut evidence = Evidence::milan();
    evidence.ark = evidence.ask.clone();
    assert_eq!(evidence.refusal(), "RootNotTrusted");
    // The same name and key with another signature is another certificate.
    let mut evidence = Evidence::milan();
    *evidence.ark.last_mut().unwrap() ^= 1;
    assert_eq!(evidence.refusal(), "RootNotTrusted");
}

#[test]
fn altered_certificates_are_refused() {
    let mut evidence = Evidence::milan();
    let at = evidence.leaf.len() - 600; // inside the hardware id
    evidence.leaf[at] ^= 1;
    assert_eq!(evidence.refusal(), "CertificateSignatureInvalid");
    let mut evidence = Evidence::milan();
    *evidence.ask.last_mut().unwrap() ^= 1;
    assert_eq!(evidence.refusal(), "CertificateSignatureInvalid");
}

#[test]
fn a_chain_travels_as_pem() {
    let chain = Evidence::milan().chain();
    let text = chain.to_pem();
    let forms = [text.clone(), text.replace('\n', "\r\n"), text.replace("-----\n-----", "----------")];
    for form in forms {
        let again = CertChain::from_pem(form.as_bytes()).unwrap();
        assert_eq!(again.to_pem(), text);
    }
    let two = text.split_inclusive("-----END CERTIFICATE-----\n").take(2).collect::<String>();
    let refused = CertChain::from_pem(two.as_bytes()).unwrap_err();
    assert_eq!(refused, ChainError::Count { found: 2 });
    assert!(CertChain::from_pem(&text.as_bytes()[..text.len() - 30]).is_err());
    assert!(CertChain::from_pem(b"\xff").is_err());
}

#[test]
fn a_revocation_list_can_be_demanded() {
    let evidence = Evidence::milan();
    let crls = Crls::new(snp::Revocation::Required);
    let refused = snp::verify(&evidence.report, &evidence.chain(), &TrustAnchors::amd(), &crls, evidence.now);
    assert_eq!(refused.unwrap_err().code(), "RevocationListMissing");
}
