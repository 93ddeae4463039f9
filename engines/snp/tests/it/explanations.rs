//! What a person reads when evidence is refused.

use std::fmt::Write as _;

use expect_test::expect;
use snp::{CertChain, Explanation, Product, TrustAnchors};

use crate::forge::Forge;
use crate::support::Evidence;

fn show(explanation: &Explanation) -> String {
    let Explanation { code, claim, expected, actual, rule, remedy } = explanation;
    let mut text = format!("{code}\n");
    for (name, part) in
        [("claim", claim), ("expected", expected), ("actual", actual), ("rule", rule), ("remedy", remedy)]
    {
        assert!(!part.is_empty(), "{code} has no {name}");
        writeln!(text, "  {name}: {part}").unwrap();
    }
    text
}

#[test]
fn an_older_firmware_than_claimed() {
    let mut forge = Forge::milan();
    forge.report.reported_tcb.0[6] = 25;
    expect![[r#"
        TcbMismatch
          claim: SnpReport.reported_tcb.snpSPL
          expected: 24, as in the certificate
          actual: 25
          rule: AMD 57230 (KDS), VCEK custom extensions: the SPLs equal the report's REPORTED_TCB
          remedy: fetch the certificate for the reported TCB: the host's firmware was updated
    "#]]
    .assert_eq(&show(&forge.refusal()));
}

#[test]
fn another_chip() {
    let mut forge = Forge::new(Product::Turin);
    forge.report.chip_id[0] = 0;
    expect![[r#"
        ChipIdMismatch
          claim: SnpReport.chip_id
          expected: chip id c7c7c7c7c7c7c7c7, as in the certificate
          actual: chip id 00c7c7c7c7c7c7c70000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
          rule: AMD 57230 (KDS), VCEK custom extensions: hwID equals the report's CHIP_ID
          remedy: send the VCEK certificate of the chip that made the report
    "#]].assert_eq(&show(&forge.refusal()));
}

#[test]
fn an_altered_report() {
    let mut evidence = Evidence::milan();
    evidence.report[0x90] ^= 1;
    expect![[r#"
        ReportSignatureInvalid
          claim: SnpReport.signature
          expected: a signature of the certificate's key over bytes 0 to 0x29F
          actual: the signature of the report is wrong
          rule: AMD 56860 (SNP firmware ABI), section 7.3 and the format of ECDSA P-384 signatures
          remedy: send the report unaltered, with the certificate for its chip id and reported TCB
    "#]]
    .assert_eq(&show(&evidence.verify().unwrap_err().explain()));
}

#[test]
fn an_expired_certificate() {
    let mut evidence = Evidence::milan();
    evidence.now.0 += 5 * 31_536_000;
    expect![[r#"
        CertificateExpired
          claim: VCEK or VLEK certificate
          expected: a time until 2030-04-03T19:23:43Z
          actual: the time 2031-02-01T02:40:00Z
          rule: RFC 5280, section 6.1, certification path validation
          remedy: fetch a new certificate from AMD's key distribution service; check the clock
    "#]]
    .assert_eq(&show(&evidence.verify().unwrap_err().explain()));
}

#[test]
fn a_development_root_where_amd_s_are_trusted() {
    let (chain, report) = Forge::milan().make();
    let refused =
        snp::verify(&report, &chain, &TrustAnchors::amd(), &snp::Crls::default(), crate::support::NOW);
    let mut explanation = refused.unwrap_err().explain();
    explanation.actual = explanation.actual.split_off(64); // the digest of a root of this minute
    expect![[r#"
        RootNotTrusted
          claim: root of the certificate chain
          expected: one of AMD's roots, or a development root that was allowed explicitly
          actual:  (CN=ARK-test,O=Casemate test)
          rule: AMD 57230 (KDS), chain of trust; the roots are pinned by digest
          remedy: use a host with AMD SEV-SNP; for a development host, configure its root and allow development roots
    "#]].assert_eq(&show(&explanation));
}

#[test]
fn a_chain_without_its_root() {
    let text = Evidence::milan().chain().to_pem();
    let end = text.rfind("-----BEGIN").unwrap();
    let refused = CertChain::from_pem(&text.as_bytes()[..end]).unwrap_err();
    expect![[r#"
        CertificateChainMalformed
          claim: certificate chain
          expected: PEM of VCEK or VLEK, then ASK or ASVK, then ARK
          actual: a certificate chain has 3 certificates (VCEK or VLEK, ASK, ARK), not 2
          rule: AMD 57230 (VCEK certificate and KDS interface), certificate chain
          remedy: send the three certificates in this order, each with its BEGIN and END line
    "#]]
    .assert_eq(&show(&refused.explain()));
}
