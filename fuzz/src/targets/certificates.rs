//! Certificates, chains and revocation lists: AMD's own with changes, and ours, signed after the change.

use std::sync::LazyLock;

use snp::{CertChain, Crls, Product, TrustAnchors, TrustRoot};

use crate::Target;
use crate::forge::{Forge, Key, List, sign_der};
use crate::support::{NOW, data, in_mode, signed_part};
use crate::targets::report::{CHIPS, forges};

pub(crate) const TARGET: Target = Target {
    name: "snp_certificates",
    run,
    seeds,
    words: &[
        b"\x2b\x06\x01\x04\x01\x9c\x78\x01",
        b"\x06\x03\x55\x1d\x13",
        b"\x06\x03\x55\x1d\x0f",
        b"\x30\x03\x01\x01\xff",
        b"Milan-B0",
        b"Turin",
    ],
    max_len: 8192,
};

static AMD: LazyLock<TrustAnchors> = LazyLock::new(TrustAnchors::amd);
static OURS: LazyLock<Vec<TrustAnchors>> = LazyLock::new(|| {
    CHIPS.iter().map(|chip| AMD.clone().with_development_root(&chip.der[2]).expect("our root")).collect()
});

/// Recorded: VCEK, ASK, ARK of a Milan machine.
pub(crate) fn milan() -> [Vec<u8>; 3] {
    let (ask, ark) = (snp::amd_ask_der(Product::Milan), snp::amd_ark_der(Product::Milan));
    [data("engines/snp/tests/data/sev-milan-vcek.der"), ask.to_vec(), ark.to_vec()]
}
static MILAN: LazyLock<[Vec<u8>; 3]> = LazyLock::new(milan);

/// Modes: 0 to 2 a certificate of AMD's replaced; 3 a list under AMD's roots; 4 to 7 a leaf of ours, signed here; 8 to
/// 11 an intermediate, signed here; 12 a list, signed here; else PEM.
fn run(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else { return };
    match mode {
        0..=2 => replaced(usize::from(*mode), bytes),
        3 => assert!(Crls::default().add(bytes, &AMD).is_err(), "AMD did not sign this"),
        4..=7 => own_leaf(usize::from(mode - 4), bytes),
        8..=11 => own_ask(usize::from(mode - 8), bytes),
        12 => own_list(bytes),
        _ => pem(bytes),
    }
}

/// A certificate is taken only when what its signature covers is what AMD signed.
fn replaced(position: usize, bytes: &[u8]) {
    let mut chain = MILAN.clone();
    let genuine = std::mem::replace(&mut chain[position], bytes.to_vec());
    let Ok(chain) = CertChain::from_der(&chain[0], &chain[1], &chain[2]) else { return };
    if let Ok(verified) = snp::verify_chain(&chain, &AMD, &Crls::default(), NOW) {
        assert_eq!(*verified.root(), TrustRoot::Amd(Product::Milan));
        assert_eq!(signed_part(bytes), signed_part(&genuine), "AMD signed something else");
    }
}

fn own_leaf(chip: usize, tbs: &[u8]) {
    let [_, ask, ark] = &CHIPS[chip].der;
    let Some(leaf) = sign_der(tbs, Key::Ask) else { return };
    let Ok(chain) = CertChain::from_der(&leaf, ask, ark) else { return };
    if let Ok(verified) = snp::verify_chain(&chain, &OURS[chip], &Crls::default(), NOW) {
        let extensions = verified.extensions();
        assert!(extensions.product_name.starts_with(extensions.product.name()));
        assert!(matches!(verified.root(), TrustRoot::Development(_)));
        assert_eq!(extensions.tcb.encode(extensions.product).decode(extensions.product), extensions.tcb);
    }
}

fn own_ask(chip: usize, tbs: &[u8]) {
    let [leaf, _, ark] = &CHIPS[chip].der;
    let Some(ask) = sign_der(tbs, Key::Ark) else { return };
    let Ok(chain) = CertChain::from_der(leaf, &ask, ark) else { return };
    let _ = snp::verify_chain(&chain, &OURS[chip], &Crls::default(), NOW);
}

fn own_list(tbs: &[u8]) {
    let Some(list) = sign_der(tbs, Key::Ark) else { return };
    let mut crls = Crls::default();
    if let Ok(root) = crls.add(&list, &OURS[0]) {
        assert!(crls.fresh_until(root).is_some(), "a list has an end");
        assert!(AMD.roots().all(|amd| amd.id() != root), "AMD did not sign this");
    }
}

fn pem(text: &[u8]) {
    if let Ok(chain) = CertChain::from_pem(text) {
        let again = CertChain::from_pem(chain.to_pem().as_bytes()).expect("our own PEM");
        assert_eq!(again.leaf_der(), chain.leaf_der());
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = (0..).zip(milan()).map(|(mode, der)| in_mode(mode, &der)).collect();
    let forge = Forge::milan();
    let lists = [List::new(), List::of_the_ask(), List { next_update: None, ..List::new() }];
    for list in lists.map(|list| forge.crl(&list)) {
        seeds.push(in_mode(3, &list));
        seeds.push(in_mode(12, signed_part(&list).expect("a list of ours")));
    }
    for (mode, made) in (4..).zip(forges().iter().map(Forge::parts)) {
        seeds.push(in_mode(mode, signed_part(&made.leaf).expect("a leaf of ours")));
        seeds.push(in_mode(mode + 4, signed_part(&made.ask).expect("an intermediate of ours")));
    }
    let [leaf, ask, ark] = milan();
    let chain = CertChain::from_der(&leaf, &ask, &ark).expect("AMD's certificates");
    seeds.push(in_mode(13, chain.to_pem().as_bytes()));
    seeds
}
