//! Chains that were verified before: the same answers, dates and lists asked anew, and a bound on what is kept.

use snp::{ChainDer, Crls, Product, Revocation, TrustAnchors, UnixTime, VerifiedChains};

use crate::forge::{Forge, List, Made};
use crate::support::{Evidence, NOW};

fn der(made: &Made) -> ChainDer {
    ChainDer::new(made.leaf.clone(), made.ask.clone(), made.ark.clone())
}

fn anchors(made: &Made) -> TrustAnchors {
    TrustAnchors::amd().with_development_root(&made.ark).unwrap()
}

#[test]
fn a_warm_chain_gives_the_answer_of_a_cold_one() {
    let evidence = Evidence::milan();
    let chain = ChainDer::from_pem(evidence.chain().to_pem().as_bytes()).unwrap();
    let chains = VerifiedChains::new(4);
    let cold = evidence.verify().unwrap();
    for _ in 0..2 {
        let verified =
            chains.verify(&evidence.report, &chain, &TrustAnchors::amd(), &Crls::default(), NOW).unwrap();
        assert_eq!((verified.report(), verified.root()), (cold.report(), cold.root()));
        assert_eq!(verified.chip_id(), cold.chip_id());
        assert_eq!(chains.len(), 1);
    }
    let mut altered = evidence.report.clone();
    altered[0x50] ^= 1;
    let refused = chains.verify(&altered, &chain, &TrustAnchors::amd(), &Crls::default(), NOW);
    assert_eq!(refused.unwrap_err().explain().code, "ReportSignatureInvalid");
}

#[test]
fn a_warm_chain_still_ends_and_is_still_revoked() {
    let forge = Forge::milan();
    let made = forge.parts();
    let (anchors, chains) = (anchors(&made), VerifiedChains::new(4));
    let verify = |crls: &Crls, now| {
        chains.verify(&made.report, &der(&made), &anchors, crls, now).map_err(|error| error.explain().code)
    };
    let none = Crls::default();
    verify(&none, NOW).unwrap();
    assert_eq!(verify(&none, UnixTime(NOW.0 + 2 * 31_536_000)).unwrap_err(), "CertificateExpired");
    assert_eq!(verify(&none, UnixTime(NOW.0 - 2 * 31_536_000)).unwrap_err(), "CertificateNotYetValid");
    assert_eq!(verify(&Crls::new(Revocation::Required), NOW).unwrap_err(), "RevocationListMissing");
    let mut revoking = Crls::default();
    revoking.add(&forge.crl(&List::of_the_ask()), &anchors).unwrap();
    assert_eq!(verify(&revoking, NOW).unwrap_err(), "CertificateRevoked");
    verify(&none, NOW).unwrap();
}

/// A root that is trusted no more, or by another caller only.
#[test]
fn a_warm_chain_needs_its_root_to_be_trusted() {
    let made = Forge::milan().parts();
    let chains = VerifiedChains::new(4);
    chains.verify(&made.report, &der(&made), &anchors(&made), &Crls::default(), NOW).unwrap();
    let refused = chains.verify(&made.report, &der(&made), &TrustAnchors::amd(), &Crls::default(), NOW);
    assert_eq!(refused.unwrap_err().explain().code, "RootNotTrusted");
}

#[test]
fn a_certificate_exchanged_in_a_warm_chain_is_seen() {
    let (made, other) = (Forge::milan().parts(), Forge::milan().parts());
    let chains = VerifiedChains::new(4);
    chains.verify(&made.report, &der(&made), &anchors(&made), &Crls::default(), NOW).unwrap();
    let mixed = ChainDer::new(other.leaf.clone(), made.ask.clone(), made.ark.clone());
    let refused = chains.verify(&made.report, &mixed, &anchors(&made), &Crls::default(), NOW);
    assert_eq!(refused.unwrap_err().explain().code, "ReportSignatureInvalid");
    // The same bytes, cut at another place, are other certificates.
    let (head, tail) = made.leaf.split_at(made.leaf.len() - 1);
    let moved = ChainDer::new(head.to_vec(), [tail, &made.ask].concat(), made.ark.clone());
    let refused = chains.verify(&made.report, &moved, &anchors(&made), &Crls::default(), NOW);
    assert_eq!(refused.unwrap_err().explain().code, "CertificateChainMalformed");
}

#[test]
fn what_is_kept_is_bounded_and_what_is_refused_is_not_kept() {
    let chains = VerifiedChains::new(2);
    for product in Product::ALL {
        let made = Forge::new(product).parts();
        let refused = chains.verify(&made.report, &der(&made), &TrustAnchors::amd(), &Crls::default(), NOW);
        assert_eq!(refused.unwrap_err().explain().code, "RootNotTrusted");
    }
    assert!(chains.is_empty());
    for product in Product::ALL {
        let made = Forge::new(product).parts();
        chains.verify(&made.report, &der(&made), &anchors(&made), &Crls::default(), NOW).unwrap();
    }
    assert_eq!(chains.len(), 2);
    let none = VerifiedChains::new(0);
    let made = Forge::milan().parts();
    none.verify(&made.report, &der(&made), &anchors(&made), &Crls::default(), NOW).unwrap();
}
