//! One attack, one refusal: evidence that is right in everything but one thing.

use snp::{
    AnchorError, CertChain, Crls, Product, Report, Revocation, SigningKey, TcbBytes, TrustAnchors, UnixTime,
    extensions as oids,
};
use x509_cert::der::oid::ObjectIdentifier;

use crate::forge::{Algorithm, Forge, Key, LeafKey, List, extension};
use crate::support::NOW;

const UNKNOWN_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.3.4");

/// Changes one thing of evidence that verifies and gives the code of the refusal.
fn refused(product: Product, change: impl FnOnce(&mut Forge)) -> String {
    let mut forge = Forge::new(product);
    change(&mut forge);
    forge.refusal().code
}

#[test]
fn unchanged_evidence_verifies() {
    for product in Product::ALL {
        let verified = Forge::new(product).verify().unwrap();
        assert_eq!(verified.product(), product);
        assert_eq!(verified.root().kind(), "development");
        assert_eq!(verified.chip_id(), Some(vec![0xC7; product.chip_id_len()].as_slice()));
        assert_eq!(verified.reported_tcb().fmc, (product == Product::Turin).then_some(3));
        assert_eq!(verified.report().launch_mit_vector, Some(5));
    }
    let verified = Forge::milan().vlek().verify().unwrap();
    assert_eq!(verified.signing_key(), SigningKey::Vlek);
    assert_eq!((verified.csp_id(), verified.chip_id()), (Some("CN=provider"), None));
}

#[test]
fn development_evidence_where_only_amd_is_trusted() {
    let (chain, report) = Forge::milan().make();
    let refused = snp::verify(&report, &chain, &TrustAnchors::amd(), &Crls::default(), NOW).unwrap_err();
    assert_eq!(refused.code(), "RootNotTrusted");
}

#[test]
fn a_forged_leaf_under_amd_s_own_certificates() {
    let (chain, report) = Forge::milan().make();
    let (ask, ark) = (snp::amd_ask_der(Product::Milan), snp::amd_ark_der(Product::Milan));
    let mixed = CertChain::from_der(chain.leaf_der(), ask, ark).unwrap();
    let refused = snp::verify(&report, &mixed, &TrustAnchors::amd(), &Crls::default(), NOW).unwrap_err();
    assert_eq!(refused.code(), "CertificateIssuerWrong");
    // The same names as AMD's do not help.
    let mut forge = Forge::milan();
    forge.leaf.issuer =
        "CN=SEV-Milan,O=Advanced Micro Devices,ST=CA,L=Santa Clara,C=US,OU=Engineering".to_owned();
    let (chain, report) = forge.make();
    let mixed = CertChain::from_der(chain.leaf_der(), ask, ark).unwrap();
    let refused = snp::verify(&report, &mixed, &TrustAnchors::amd(), &Crls::default(), NOW).unwrap_err();
    assert!(matches!(refused.code(), "CertificateSignatureInvalid" | "CertificateIssuerWrong"));
}

#[test]
fn a_report_of_another_chip() {
    for product in Product::ALL {
        assert_eq!(refused(product, |forge| forge.report.chip_id[0] ^= 1), "ChipIdMismatch");
        assert_eq!(refused(product, |forge| forge.report.chip_id[7] ^= 1), "ChipIdMismatch");
    }
    // Turin's ids have eight bytes; something behind them is another id.
    assert_eq!(refused(Product::Turin, |forge| forge.report.chip_id[8] = 1), "ChipIdMismatch");
}

#[test]
fn a_masked_chip_id_is_that_of_the_certificate() {
    let mut forge = Forge::milan();
    forge.report.chip_id = [0; 64];
    assert_eq!(forge.verify().unwrap().chip_id(), Some([0xC7; 64].as_slice()));
}

#[test]
fn a_report_that_claims_another_tcb_than_its_key() {
    for product in Product::ALL {
        for byte in 0..8 {
            let code = refused(product, |forge| {
                let mut bytes = forge.report.reported_tcb.0;
                bytes[byte] ^= 1;
                forge.report.reported_tcb = TcbBytes(bytes);
            });
            assert_eq!(code, "TcbMismatch", "{product} byte {byte}");
        }
    }
    // What runs may be newer than what is reported; it is shown, not refused.
    let mut forge = Forge::milan();
    forge.report.current_tcb = TcbBytes([4, 1, 0, 0, 0, 0, 99, 219]);
    assert_eq!(forge.verify().unwrap().current_tcb().snp, 99);
}

#[test]
fn a_report_of_another_product_or_of_unknown_silicon() {
    let genoa = |forge: &mut Forge| forge.report.cpu = Some(Product::Genoa.cpu());
    assert_eq!(refused(Product::Milan, genoa), "ProductMismatch");
    for (family, model) in [(0x17, 0x31), (0x19, 0x20), (0x19, 0xb0), (0x1a, 0x12), (0x1b, 0x01), (0, 0)] {
        let code = refused(Product::Milan, |forge| {
            forge.report.cpu = Some(snp::CpuIdentity { family, model, stepping: 0 });
        });
        assert_eq!(code, "SiliconUnknown", "{family:#x} {model:#x}");
    }
    // Version 2 says nothing about the CPU; the certificate does.
    let forge = Forge::milan().version(2);
    assert_eq!(forge.verify().unwrap().product(), Product::Milan);
}

#[test]
fn a_report_signed_by_another_kind_of_key_than_its_certificate() {
    let vlek = |forge: &mut Forge| forge.report.signing_key = SigningKey::Vlek;
    assert_eq!(refused(Product::Milan, vlek), "ReportSigningKeyMismatch");
    let none = |forge: &mut Forge| forge.report.signing_key = SigningKey::None;
    assert_eq!(refused(Product::Milan, none), "ReportSigningKeyMismatch");
    let masked = |forge: &mut Forge| forge.report.mask_chip_key = true;
    assert_eq!(refused(Product::Milan, masked), "ReportSigningKeyMismatch");
    let mut forge = Forge::milan().vlek();
    forge.report.signing_key = SigningKey::Vcek;
    assert_eq!(forge.refusal().code, "ReportSigningKeyMismatch");
}

#[test]
fn a_report_signed_by_an_unknown_version_or_algorithm() {
    for version in [0, 1, 6, u32::MAX] {
        let code = refused(Product::Milan, |forge| forge.report.version = version);
        assert_eq!(code, "ReportVersionUnknown", "{version}");
    }
    for algorithm in [0, 2, u32::MAX] {
        let code = refused(Product::Milan, |forge| forge.report.signature_algo = algorithm);
        assert_eq!(code, "ReportSignatureAlgorithmWrong", "{algorithm}");
    }
}

#[test]
fn an_unsigned_report() {
    let (chain, mut report) = Forge::milan().make();
    report[0x2A0..].fill(0);
    let refused = snp::verify(&report, &chain, &Forge::anchors(&chain), &Crls::default(), NOW).unwrap_err();
    assert_eq!(refused.code(), "ReportSignatureInvalid");
}

#[test]
fn a_report_of_another_key_of_the_same_chip() {
    let (chain, _) = Forge::milan().make();
    let (_, report) = Forge::milan().make();
    let refused = snp::verify(&report, &chain, &Forge::anchors(&chain), &Crls::default(), NOW).unwrap_err();
    assert_eq!(refused.code(), "ReportSignatureInvalid");
}

#[test]
fn the_debug_bit_is_visible() {
    let mut forge = Forge::milan();
    assert!(!forge.verify().unwrap().policy().debug());
    forge.report.policy.0 |= 1 << 19;
    assert!(forge.verify().unwrap().policy().debug());
}

#[test]
fn certificates_that_are_out_of_date() {
    type Part = fn(&mut Forge) -> &mut crate::forge::Paper;
    let parts: [Part; 3] = [|forge| &mut forge.leaf, |forge| &mut forge.ask, |forge| &mut forge.ark];
    for part in parts {
        assert_eq!(refused(Product::Milan, |forge| part(forge).not_after = NOW.0 - 1), "CertificateExpired");
        assert_eq!(
            refused(Product::Milan, |forge| part(forge).not_before = NOW.0 + 1),
            "CertificateNotYetValid"
        );
        let mut forge = Forge::milan();
        (part(&mut forge).not_before, part(&mut forge).not_after) = (NOW.0, NOW.0);
        forge.verify().expect("both ends are included");
    }
}

#[test]
fn a_chain_that_was_verified_once_ends_with_its_certificates() {
    let (chain, report) = Forge::milan().make();
    let verified = snp::verify_chain(&chain, &Forge::anchors(&chain), &Crls::default(), NOW).unwrap();
    snp::verify_report(&report, &verified, NOW).unwrap();
    let later = UnixTime(NOW.0 + 2 * 31_536_000);
    assert_eq!(snp::verify_report(&report, &verified, later).unwrap_err().code(), "CertificateExpired");
}

#[test]
fn certificates_signed_in_another_way() {
    let signed = |algorithm| move |forge: &mut Forge| forge.leaf.algorithm = algorithm;
    assert_eq!(refused(Product::Milan, signed(Algorithm::PssSha256)), "CertificateAlgorithmWrong");
    assert_eq!(refused(Product::Milan, signed(Algorithm::Pkcs1)), "CertificateAlgorithmWrong");
    assert_eq!(refused(Product::Milan, signed(Algorithm::Pkcs1AsPss)), "CertificateSignatureInvalid");
    let ask = |forge: &mut Forge| forge.ask.algorithm = Algorithm::Pkcs1;
    assert_eq!(refused(Product::Milan, ask), "CertificateAlgorithmWrong");
    let mut forge = Forge::milan();
    forge.leaf.algorithm = Algorithm::Pss { trailer: false };
    forge.verify().expect("the default trailer may be left out");
}

#[test]
fn an_intermediate_that_is_none() {
    let no_ca = |forge: &mut Forge| forge.ask.remove(ObjectIdentifier::new_unwrap("2.5.29.19"));
    assert_eq!(refused(Product::Milan, no_ca), "CertificateNotAnIssuer");
    let not_ca = |forge: &mut Forge| forge.ask.set(ObjectIdentifier::new_unwrap("2.5.29.19"), &[0x30, 0]);
    assert_eq!(refused(Product::Milan, not_ca), "CertificateNotAnIssuer");
    let small = |forge: &mut Forge| (forge.ask_key, forge.leaf.signed_by) = (Key::Small, Key::Small);
    assert_eq!(refused(Product::Milan, small), "IssuerKeyWrong");
    let other = |forge: &mut Forge| forge.leaf.issuer = "CN=SEV-other,O=Casemate test".to_owned();
    assert_eq!(refused(Product::Milan, other), "CertificateIssuerWrong");
    let other = |forge: &mut Forge| forge.ask.issuer = "CN=ARK-other,O=Casemate test".to_owned();
    assert_eq!(refused(Product::Milan, other), "CertificateIssuerWrong");
}

#[test]
fn critical_extensions_that_nobody_understands() {
    let unknown = || extension(UNKNOWN_OID, true, &[5, 0]);
    assert_eq!(
        refused(Product::Milan, |forge| forge.leaf.extensions.push(unknown())),
        "CertificateExtensionUnknown"
    );
    assert_eq!(
        refused(Product::Milan, |forge| forge.ask.extensions.push(unknown())),
        "CertificateExtensionUnknown"
    );
    let mut forge = Forge::milan();
    forge.leaf.extensions.push(extension(UNKNOWN_OID, false, &[5, 0]));
    forge.verify().expect("others do no harm");
}

#[test]
fn a_key_on_another_curve() {
    assert_eq!(refused(Product::Milan, |forge| forge.leaf_key = LeafKey::P256), "CertificateKeyWrong");
}

#[test]
fn both_encodings_of_the_hardware_id_are_the_same() {
    let mut forge = Forge::milan();
    forge.leaf.set(oids::HWID, &[[4, 64].as_slice(), &[0xC7; 64]].concat());
    forge.verify().unwrap();
    let mut forge = Forge::new(Product::Turin);
    forge.leaf.set(oids::HWID, &[[4, 8].as_slice(), &[0xC7; 8]].concat());
    forge.verify().unwrap();
    let inside = |forge: &mut Forge| forge.leaf.set(oids::HWID, &[[4, 64].as_slice(), &[0xC8; 64]].concat());
    assert_eq!(refused(Product::Milan, inside), "ChipIdMismatch");
}

#[test]
fn revoked_intermediates_and_lists_that_are_not_current() {
    let forge = Forge::milan();
    let (chain, report) = forge.make();
    let anchors = Forge::anchors(&chain);
    let verify = |list: &List, now| {
        let mut crls = Crls::new(Revocation::Required);
        crls.add(&forge.crl(list), &anchors).unwrap();
        snp::verify(&report, &chain, &anchors, &crls, now).map_err(|error| error.code())
    };
    verify(&List::new(), NOW).unwrap();
    assert_eq!(verify(&List::of_the_ask(), NOW).unwrap_err(), "CertificateRevoked");
    let (first, last) = (NOW.0 - 100, NOW.0 + 100);
    verify(&List::new(), UnixTime(first)).unwrap();
    verify(&List::new(), UnixTime(last)).unwrap();
    assert_eq!(verify(&List::new(), UnixTime(first - 1)).unwrap_err(), "RevocationListNotCurrent");
    assert_eq!(verify(&List::new(), UnixTime(last + 1)).unwrap_err(), "RevocationListNotCurrent");
    // The leaf's serial number is zero, but the root did not issue the leaf.
    verify(&List { revoked: vec![0], ..List::new() }, NOW).unwrap();
}

#[test]
fn lists_that_are_none() {
    let forge = Forge::milan();
    let (chain, _) = forge.make();
    let anchors = Forge::anchors(&chain);
    let add =
        |list: &List| Crls::default().add(&forge.crl(list), &anchors).map_err(|error| error.to_string());
    let root = add(&List::new()).unwrap();
    assert_eq!(Some(root), anchors.roots().map(|root| root.id()).last());
    let refused = |list: List, words: &str| {
        let error = add(&list).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    refused(List { next_update: None, ..List::new() }, "has no nextUpdate");
    refused(List { signed_by: Key::Ask, ..List::new() }, "signature");
    refused(List { algorithm: Algorithm::Pkcs1, ..List::new() }, "not signed with RSASSA-PSS");
    refused(List { algorithm: Algorithm::PssSha256, ..List::new() }, "not signed with RSASSA-PSS");
    refused(List { issuer: "CN=stranger".to_owned(), ..List::new() }, "not one of a trusted root");
    let delta = extension(ObjectIdentifier::new_unwrap("2.5.29.27"), true, &[2, 1, 1]);
    refused(List { extensions: vec![delta], ..List::new() }, "critical extension 2.5.29.27");
    let mut altered = forge.crl(&List::of_the_ask());
    let at = altered.len() - 600;
    altered[at] ^= 1;
    assert!(Crls::default().add(&altered, &anchors).is_err());
    assert!(Crls::default().add(b"no list", &anchors).is_err());
}

#[test]
fn an_older_list_does_not_replace_a_newer_one() {
    let forge = Forge::milan();
    let (chain, report) = forge.make();
    let anchors = Forge::anchors(&chain);
    let newer = forge.crl(&List::of_the_ask());
    let older = forge.crl(&List { this_update: UnixTime(NOW.0 - 1_000), ..List::new() });
    for order in [[&newer, &older], [&older, &newer]] {
        let mut crls = Crls::default();
        for list in order {
            crls.add(list, &anchors).unwrap();
        }
        let refused = snp::verify(&report, &chain, &anchors, &crls, NOW).unwrap_err();
        assert_eq!(refused.code(), "CertificateRevoked");
    }
}

#[test]
fn roots_that_are_none() {
    let refused = |change: fn(&mut Forge)| {
        let mut forge = Forge::milan();
        change(&mut forge);
        TrustAnchors::amd().with_development_root(&forge.root()).unwrap_err()
    };
    let not_self_signed = refused(|forge| forge.ark.issuer = "CN=somebody".to_owned());
    assert!(matches!(not_self_signed, AnchorError::NotARoot(_)), "{not_self_signed}");
    let no_ca = refused(|forge| forge.ark.extensions.clear());
    assert!(matches!(no_ca, AnchorError::NotARoot(_)), "{no_ca}");
    let weak = refused(|forge| forge.ark.algorithm = Algorithm::Pkcs1);
    assert!(matches!(weak, AnchorError::NotARoot(_)), "{weak}");
    let mut altered = Forge::milan().root();
    *altered.last_mut().unwrap() ^= 1;
    let altered = TrustAnchors::amd().with_development_root(&altered).unwrap_err();
    assert!(matches!(altered, AnchorError::NotARoot(_)), "{altered}");
    let (chain, _) = Forge::milan().make();
    let intermediate = TrustAnchors::amd().with_development_root(chain.ask_der()).unwrap_err();
    assert!(matches!(intermediate, AnchorError::NotARoot(_)), "{intermediate}");
    for product in Product::ALL {
        let amd = TrustAnchors::amd().with_development_root(snp::amd_ark_der(product)).unwrap_err();
        assert_eq!(amd, AnchorError::Amd(product), "AMD's root cannot be made a development root");
    }
    assert!(TrustAnchors::amd().with_development_root(b"").is_err());
}

#[test]
fn reports_survive_being_written_and_read() {
    for product in Product::ALL {
        let report = Forge::new(product).report;
        assert_eq!(Report::parse(&report.encode()).unwrap(), report);
    }
}
