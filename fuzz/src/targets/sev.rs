//! The crate `sev` beside ours: what it refuses we never accept, and what both read means the same.

use std::sync::LazyLock;

use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;
use snp::report::{REPORT_SIZE, SIGNED_SIZE};
use snp::{CertChain, Crls, GuestPolicy, Product, Report, TcbBytes, TrustAnchors};

use crate::Target;
use crate::forge::{Key, sign_der, sign_report};
use crate::support::{NOW, in_mode, signed_part};
use crate::targets::certificates::milan;
use crate::targets::report::{self, CHIPS};

pub(crate) const TARGET: Target = Target {
    name: "sev_differential",
    run,
    seeds,
    words: &[b"\x06\x03\x55\x1d\x13", b"\x2b\x06\x01\x04\x01\x9c\x78\x01"],
    max_len: 4096,
};

static MILAN: LazyLock<[Vec<u8>; 3]> = LazyLock::new(milan);

/// Modes: 0 to 3 a report, signed by that chip; 4 to 7 a leaf of that chip, signed here; 8 to 11 an intermediate, signed
/// here; 12 to 14 a certificate of AMD's replaced; else a report, parsed only.
fn run(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else { return };
    match mode {
        0..=3 => signed_report(usize::from(*mode), bytes),
        4..=7 => own_certificate(usize::from(mode - 4), 0, Key::Ask, bytes),
        8..=11 => own_certificate(usize::from(mode - 8), 1, Key::Ark, bytes),
        12..=14 => {
            let mut chain = MILAN.clone();
            chain[usize::from(mode - 12)] = bytes.to_vec();
            same_chain(&chain, &TrustAnchors::amd());
        }
        _ => same_report(bytes),
    }
}

fn own_certificate(chip: usize, position: usize, key: Key, tbs: &[u8]) {
    let Some(certificate) = sign_der(tbs, key) else { return };
    let mut chain = CHIPS[chip].der.clone();
    chain[position] = certificate;
    let anchors = TrustAnchors::amd().with_development_root(&chain[2]).expect("our root");
    same_chain(&chain, &anchors);
}

fn same_chain(der: &[Vec<u8>; 3], anchors: &TrustAnchors) {
    let Ok(chain) = CertChain::from_der(&der[0], &der[1], &der[2]) else { return };
    if snp::verify_chain(&chain, anchors, &Crls::default(), NOW).is_ok() {
        let theirs = sev_chain(der).expect("`sev` reads what we verify");
        theirs.verify().expect("`sev` verifies what we verify");
    }
}

fn sev_chain([leaf, ask, ark]: &[Vec<u8>; 3]) -> std::io::Result<Chain> {
    let (ark, ask) = (Certificate::from_der(ark)?, Certificate::from_der(ask)?);
    Ok(Chain { ca: ca::Chain { ark, ask }, vek: Certificate::from_der(leaf)? })
}

fn signed_report(chip: usize, bytes: &[u8]) {
    same_report(bytes);
    let Ok(raw) = <&[u8; REPORT_SIZE]>::try_from(bytes) else { return };
    let chip = &CHIPS[chip];
    let mut unsigned = *raw;
    unsigned[SIGNED_SIZE..].fill(0);
    let bytes = sign_report(&unsigned, &chip.key);
    let Ok(ours) = snp::verify_report(&bytes, &chip.verified, NOW) else { return };
    if unreadable_for_sev(ours.report()) {
        return;
    }
    let theirs = AttestationReport::from_bytes(&bytes).expect("`sev` reads what we verify");
    let chain = sev_chain(&chip.der).expect("our own chain");
    (&chain, &theirs).verify().expect("`sev` verifies what we verify");
}

fn same_report(bytes: &[u8]) {
    let Ok(ours) = Report::parse(bytes) else { return };
    if unreadable_for_sev(&ours) {
        return;
    }
    let theirs = AttestationReport::from_bytes(bytes).expect("`sev` reads what we read");
    assert_eq!(theirs.version, ours.version);
    assert_eq!(theirs.guest_svn, ours.guest_svn);
    // It sets the bit that must be one where it is not; our verifier refuses that.
    assert_eq!(u64::from(theirs.policy), ours.policy.0 | GuestPolicy::RESERVED_ONE);
    assert_eq!((theirs.family_id, theirs.image_id), (ours.family_id, ours.image_id));
    assert_eq!((theirs.vmpl, theirs.sig_algo), (ours.vmpl, ours.signature_algo));
    assert_eq!(u64::from(theirs.plat_info), ours.platform_info.0);
    assert_eq!((theirs.report_data, theirs.measurement), (ours.report_data, ours.measurement));
    assert_eq!((theirs.host_data, theirs.id_key_digest), (ours.host_data, ours.id_key_digest));
    assert_eq!(theirs.author_key_digest, ours.author_key_digest);
    assert_eq!((theirs.report_id, theirs.report_id_ma), (ours.report_id, ours.report_id_ma));
    assert_eq!(theirs.chip_id, ours.chip_id);
    let cpu = ours.cpu.map(|cpu| (cpu.family, cpu.model, cpu.stepping));
    let fields = (theirs.cpuid_fam_id, theirs.cpuid_mod_id, theirs.cpuid_step);
    assert_eq!(fields, (cpu.map(|cpu| cpu.0), cpu.map(|cpu| cpu.1), cpu.map(|cpu| cpu.2)));
    assert_eq!(theirs.launch_mit_vector, ours.launch_mit_vector);
    assert_eq!(theirs.current_mit_vector, ours.current_mit_vector);
    let (current, committed) = (ours.current_version, ours.committed_version);
    assert_eq!((theirs.current.major, theirs.current.minor), (current.major, current.minor));
    assert_eq!((theirs.current.build, theirs.committed.build), (current.build, committed.build));
    assert_eq!((theirs.committed.major, theirs.committed.minor), (committed.major, committed.minor));
    let info = theirs.key_info;
    assert_eq!(info.author_key_en(), ours.author_key_en);
    assert_eq!(info.mask_chip_key(), ours.mask_chip_key);
    same_tcbs(&theirs, &ours);
}

fn same_tcbs(theirs: &AttestationReport, ours: &Report) {
    let product = generation(ours);
    let pairs = [
        (theirs.current_tcb, ours.current_tcb),
        (theirs.reported_tcb, ours.reported_tcb),
        (theirs.committed_tcb, ours.committed_tcb),
        (theirs.launch_tcb, ours.launch_tcb),
    ];
    for (theirs, TcbBytes(bytes)) in pairs {
        let ours = TcbBytes(bytes).decode(product);
        assert_eq!((theirs.fmc, theirs.bootloader, theirs.tee), (ours.fmc, ours.boot_loader, ours.tee));
        assert_eq!((theirs.snp, theirs.microcode), (ours.snp, ours.microcode));
    }
}

/// What `sev` cannot read although it is right: a report of version 2 with a masked chip id, for it guesses the product
/// from the id; what it does not read to the end because it is of silicon that neither knows; and levels in the bytes of
/// a TCB that have no name yet, which it loses when it writes the report anew to check its signature.
fn unreadable_for_sev(report: &Report) -> bool {
    let masked = report.version == 2 && report.chip_id_masked();
    let product = generation(report);
    let tcbs = [report.current_tcb, report.reported_tcb, report.committed_tcb, report.launch_tcb];
    let unnamed = tcbs.iter().any(|tcb| tcb.decode(product).reserved != [0; 4]);
    masked || unnamed || report.cpu.is_some_and(|cpu| cpu.product().is_none())
}

/// The generation that `sev` decodes by: of the CPU, in version 2 by the look of the chip's id.
fn generation(report: &Report) -> Product {
    let turin = report.chip_id[8..] == [0; 56];
    report.product().unwrap_or(if turin { Product::Turin } else { Product::Genoa })
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = report::seeds();
    // Found by fuzzing: a level without a name in the launch TCB; a policy whose bit 17 is zero.
    let forge = report::forges().swap_remove(2);
    let mut unnamed = forge.report.clone();
    unnamed.launch_tcb.0[5] = 0x4C;
    let no_policy = Report { policy: GuestPolicy(0), ..forge.report };
    seeds.extend([unnamed, no_policy].map(|report| in_mode(2, &report.encode())));
    seeds.extend((12..).zip(milan()).map(|(mode, der)| in_mode(mode, &der)));
    seeds.extend(odd_leaves().map(|tbs| in_mode(4, &tbs)));
    seeds.push(in_mode(8, &odd_intermediate()));
    for (mode, forge) in (4..).zip(report::forges()) {
        let made = forge.parts();
        seeds.push(in_mode(mode, signed_part(&made.leaf).expect("a leaf of ours")));
        seeds.push(in_mode(mode + 4, signed_part(&made.ask).expect("an intermediate of ours")));
    }
    seeds
}

/// Found by fuzzing: a subject that is no UTF-8; one of a kind of text that no certificate has today; a number of an
/// object identifier that begins with a zero.
fn odd_leaves() -> [Vec<u8>; 3] {
    let leaf = report::forges().swap_remove(0).parts().leaf;
    let tbs = signed_part(&leaf).expect("a leaf of ours");
    let subject = position(tbs, b"\x0c\x08SEV-VCEK");
    let version = position(tbs, b"\x2b\x06\x01\x04\x01\x9c\x78\x01\x01");
    [(subject + 4, 0xED), (subject, 0x1C), (version + 2, 0x80)].map(|(at, byte)| {
        let mut odd = tbs.to_vec();
        odd[at] = byte;
        odd
    })
}

/// Found by trying all values of all bytes: an RSA key whose algorithm has a parameter.
fn odd_intermediate() -> Vec<u8> {
    let ask = report::forges().swap_remove(0).parts().ask;
    let mut tbs = signed_part(&ask).expect("an intermediate of ours").to_vec();
    let parameters = position(&tbs, b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00") + 9;
    tbs[parameters] = 0x01;
    tbs
}

fn position(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).expect("a leaf of ours holds it")
}
