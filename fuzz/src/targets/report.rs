//! Attestation reports: parsing, and verification of what a chip of ours signed.

use std::sync::LazyLock;

use aws_lc_rs::signature::EcdsaKeyPair;
use snp::report::{REPORT_SIZE, SIGNED_SIZE};
use snp::{CertChain, Crls, Product, Report, SigningKey, VerifiedChain, verify_report};

use crate::Target;
use crate::forge::{Forge, sign_report};
use crate::support::{NOW, data, in_mode};

pub(crate) const TARGET: Target =
    Target { name: "snp_report", run, seeds, words: &[], max_len: 1 + REPORT_SIZE + 8 };

/// A chip whose chain was verified.
pub(crate) struct Chip {
    pub(crate) key: EcdsaKeyPair,
    pub(crate) verified: VerifiedChain,
    pub(crate) der: [Vec<u8>; 3],
}

/// Chips of the three products with a VCEK, and one with a VLEK.
pub(crate) static CHIPS: LazyLock<Vec<Chip>> = LazyLock::new(|| forges().iter().map(chip).collect());

pub(crate) fn forges() -> Vec<Forge> {
    let chips = Product::ALL.map(Forge::new).into_iter();
    chips.chain([Forge::milan().vlek()]).collect()
}

fn chip(forge: &Forge) -> Chip {
    let made = forge.parts();
    let chain = CertChain::from_der(&made.leaf, &made.ask, &made.ark).expect("our own certificates");
    let anchors = Forge::anchors(&chain);
    let verified = snp::verify_chain(&chain, &anchors, &Crls::default(), NOW).expect("our own chain");
    Chip { key: made.key, verified, der: [made.leaf, made.ask, made.ark] }
}

/// Mode: which chip signs; from 4 on nobody does.
fn run(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else { return };
    if let Ok(report) = Report::parse(bytes) {
        let encoded = report.encode();
        assert_eq!(encoded[..SIGNED_SIZE], bytes[..SIGNED_SIZE], "what is signed is read whole");
        assert_eq!(Report::parse(&encoded).as_ref(), Ok(&report), "what was written is read back");
    }
    match CHIPS.get(usize::from(*mode)) {
        Some(chip) => signed(bytes, chip),
        None => {
            let refused = verify_report(bytes, &CHIPS[0].verified, NOW);
            assert!(refused.is_err(), "nobody signed this");
        }
    }
}

/// Signs the bytes as the chip would, and looks at what the verifier takes.
fn signed(bytes: &[u8], chip: &Chip) {
    let Ok(raw) = <&[u8; REPORT_SIZE]>::try_from(bytes) else {
        assert!(verify_report(bytes, &chip.verified, NOW).is_err(), "a report has one length");
        return;
    };
    let mut unsigned = *raw;
    unsigned[SIGNED_SIZE..].fill(0);
    let report = sign_report(&unsigned, &chip.key);
    let Ok(verified) = verify_report(&report, &chip.verified, NOW) else { return };
    let read = verified.report();
    assert_eq!(verified.reported_tcb(), chip.verified.extensions().tcb, "the certificate's TCB");
    assert_ne!(verified.signing_key(), SigningKey::None);
    assert_eq!(read.signature_algo, 1);
    if let Some(cpu) = read.cpu {
        assert_eq!(cpu.product(), Some(verified.product()));
    }
    let mut flipped = report;
    let at = usize::from(flipped[0x50]) % SIGNED_SIZE;
    flipped[at] ^= 1;
    assert!(verify_report(&flipped, &chip.verified, NOW).is_err(), "byte {at:#x} is signed");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let recorded = data("engines/snp/tests/data/sev-milan-report.bin");
    let mut seeds = vec![in_mode(9, &recorded), in_mode(0, &recorded)];
    for (mode, forge) in (0..).zip(forges()) {
        for version in 2..=5 {
            let mut report = forge.report.clone();
            report.version = version;
            report.cpu = report.cpu.filter(|_| version > 2);
            if version < 5 {
                (report.launch_mit_vector, report.current_mit_vector) = (None, None);
            }
            seeds.push(in_mode(mode, &report.encode()));
        }
    }
    seeds
}
