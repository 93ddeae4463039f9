//! Faults of the report: bytes altered after signing, wrong lengths, bad signatures, and signed fields that lie.

use snp::report::REPORT_SIZE;
use snp::{CpuIdentity, Product, SigningKey};

use crate::corpus::case::{Bundle, Cases};
use crate::forge::{Forge, Made, sign_report};

/// Name, offset and length of every field that is signed (ABI table "ATTESTATION_REPORT").
pub(super) const FIELDS: [(&str, usize, usize); 35] = [
    ("version", 0x000, 4),
    ("guest_svn", 0x004, 4),
    ("policy", 0x008, 8),
    ("family_id", 0x010, 16),
    ("image_id", 0x020, 16),
    ("vmpl", 0x030, 4),
    ("current_tcb", 0x038, 8),
    ("platform_info", 0x040, 8),
    ("key_info", 0x048, 4),
    ("reserved 0x4C", 0x04C, 4),
    ("report_data", 0x050, 64),
    ("measurement", 0x090, 48),
    ("host_data", 0x0C0, 32),
    ("id_key_digest", 0x0E0, 48),
    ("author_key_digest", 0x110, 48),
    ("report_id", 0x140, 32),
    ("report_id_ma", 0x160, 32),
    ("reported_tcb", 0x180, 8),
    ("cpuid_fam_id", 0x188, 1),
    ("cpuid_mod_id", 0x189, 1),
    ("cpuid_step", 0x18A, 1),
    ("reserved 0x18B", 0x18B, 21),
    ("chip_id", 0x1A0, 64),
    ("committed_tcb", 0x1E0, 8),
    ("current_build", 0x1E8, 1),
    ("current_minor", 0x1E9, 1),
    ("current_major", 0x1EA, 1),
    ("reserved 0x1EB", 0x1EB, 1),
    ("committed_build", 0x1EC, 1),
    ("committed_minor", 0x1ED, 1),
    ("committed_major", 0x1EE, 1),
    ("launch_tcb", 0x1F0, 8),
    ("launch_mit_vector", 0x1F8, 8),
    ("current_mit_vector", 0x200, 8),
    ("reserved 0x208", 0x208, 0x98),
];

pub(super) fn cases(cases: &mut Cases, forge: &Forge) {
    let made = forge.parts();
    altered(cases, &made);
    lengths(cases, &made);
    signatures(cases, &made);
    let mut signed = Signed { cases, made, forge };
    formats(&mut signed);
    keys(&mut signed);
    reserved(&mut signed);
    identity(&mut signed);
    tcbs(&mut signed);
    versions(&mut signed);
}

fn altered(cases: &mut Cases, made: &Made) {
    for (field, at, len) in FIELDS {
        for (end, at) in [("first", at), ("last", at + len - 1)].into_iter().take(len.min(2)) {
            let mut bundle = Bundle::made(made);
            bundle.report[at] ^= 1;
            cases.add("altered after signing", format!("{field}, {end} byte"), bundle);
        }
    }
    let mut bundle = Bundle::made(made);
    bundle.report[0x34] ^= 2;
    cases.add("signature algorithm", "altered after signing", bundle);
}

fn lengths(cases: &mut Cases, made: &Made) {
    for len in [0, 1, 0x2A0, 1183, 1185, 2 * REPORT_SIZE] {
        let mut bundle = Bundle::made(made);
        bundle.report.resize(len, 0);
        cases.add("length of the report", len, bundle);
    }
}

fn signatures(cases: &mut Cases, made: &Made) {
    let mut with = |fault, form: &str, change: &dyn Fn(&mut [u8])| {
        let mut bundle = Bundle::made(made);
        change(&mut bundle.report);
        cases.add(fault, form, bundle);
    };
    with("wrong signature", "all zero", &|report| report[0x2A0..].fill(0));
    with("wrong signature", "r is zero", &|report| report[0x2A0..0x2E8].fill(0));
    with("wrong signature", "s is zero", &|report| report[0x2E8..0x330].fill(0));
    with("wrong signature", "r altered", &|report| report[0x2A0] ^= 1);
    with("wrong signature", "s altered", &|report| report[0x2E8] ^= 1);
    with("wrong signature", "r as large as can be", &|report| report[0x2A0..0x2D0].fill(0xFF));
    with("wrong signature", "r and s exchanged", &|report| {
        let (r, s) = report[0x2A0..0x330].split_at_mut(72);
        r.swap_with_slice(s);
    });
    with("wrong signature", "big endian", &|report| {
        report[0x2A0..0x2D0].reverse();
        report[0x2E8..0x318].reverse();
    });
    with("form of the signature", "r of more than 384 bits", &|report| report[0x2D0] = 1);
    with("form of the signature", "s of more than 384 bits", &|report| report[0x32F] = 1);
    with("form of the signature", "first byte behind it", &|report| report[0x330] = 1);
    with("form of the signature", "last byte behind it", &|report| report[0x49F] = 1);
    let other = Forge::milan().parts();
    let raw = made.report.first_chunk().expect("a whole report");
    let report = sign_report(raw, &other.key);
    cases.add("wrong signature", "of another key", Bundle { report, ..Bundle::made(made) });
}

/// Changes a report before it is signed.
struct Signed<'a> {
    cases: &'a mut Cases,
    made: Made,
    forge: &'a Forge,
}

impl Signed<'_> {
    fn with(&mut self, fault: &'static str, form: impl std::fmt::Display, change: impl FnOnce(&mut [u8])) {
        let mut raw: [u8; REPORT_SIZE] = *self.made.report.first_chunk().expect("a whole report");
        raw[0x2A0..].fill(0);
        change(&mut raw);
        let report = sign_report(&raw, &self.made.key);
        self.cases.add(fault, form, Bundle { report, ..Bundle::made(&self.made) });
    }
}

fn formats(signed: &mut Signed<'_>) {
    for version in [0u32, 1, 6, u32::MAX] {
        signed.with("version", version, |raw| raw[..4].copy_from_slice(&version.to_le_bytes()));
    }
    for algorithm in [0u32, 2, u32::MAX] {
        signed.with("signature algorithm", algorithm, |raw| {
            raw[0x34..0x38].copy_from_slice(&algorithm.to_le_bytes());
        });
    }
    for vmpl in [4u32, 0xFFFF_FFFE] {
        signed.with("vmpl", vmpl, |raw| raw[0x30..0x34].copy_from_slice(&vmpl.to_le_bytes()));
    }
    signed.with("guest policy, reserved one", "bit 17", |raw| raw[0x0A] &= !2);
    for bit in [26, 40, 63] {
        signed.with("guest policy, unknown bit", bit, |raw| raw[8 + bit / 8] |= 1 << (bit % 8));
    }
}

fn keys(signed: &mut Signed<'_>) {
    for value in 2..=6 {
        signed.with("reserved signing key", value, |raw| raw[0x48] = raw[0x48] & 3 | value << 2);
    }
    signed.with("signed by no key", "7", |raw| raw[0x48] = raw[0x48] & 3 | 7 << 2);
    let vcek = signed.forge.report.signing_key == SigningKey::Vcek;
    signed.with("signed by the other key", if vcek { "VLEK" } else { "VCEK" }, |raw| raw[0x48] ^= 1 << 2);
    if vcek {
        signed.with("chip key masked", "bit 1", |raw| raw[0x48] |= 2);
    }
    signed.with("author key without digest", "AUTHOR_KEY_EN", |raw| raw[0x48] |= 1);
    signed.with("author digest without key", "first byte", |raw| raw[0x110] = 1);
    signed.with("author digest without key", "last byte", |raw| raw[0x13F] = 1);
    signed.with("author key without ID key", "no ID key", |raw| {
        raw[0x48] |= 1;
        raw[0x110] = 1;
    });
}

fn reserved(signed: &mut Signed<'_>) {
    let version = signed.forge.report.version;
    for bit in [5, 7, 8, 31] {
        signed.with("reserved byte set", format!("key_info bit {bit}"), |raw| {
            raw[0x48 + bit / 8] |= 1 << (bit % 8);
        });
    }
    let mut bytes = vec![0x4C, 0x4F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F];
    if version < 5 {
        bytes.extend([0x1F8, 0x1FF, 0x200, 0x207]);
    }
    if version < 3 {
        bytes.extend([0x188, 0x189, 0x18A]);
    }
    for at in bytes {
        signed.with("reserved byte set", format!("{at:#x}"), |raw| raw[at] = 1);
    }
}

fn identity(signed: &mut Signed<'_>) {
    let own = signed.made.report[0x1A0..0x1E0].to_vec();
    if signed.forge.report.signing_key == SigningKey::Vcek {
        for at in [0, 7, 8, 63] {
            signed.with("another chip", format!("byte {at}"), |raw| raw[0x1A0 + at] ^= 1);
        }
        signed.with("another chip", "reversed", |raw| {
            raw[0x1A0..0x1E0].copy_from_slice(&own);
            raw[0x1A0] ^= 0x80;
            raw[0x1A0..0x1E0].reverse();
        });
    } else if signed.forge.product() == Product::Turin {
        signed.with("chip id longer than the product's", "byte 8", |raw| raw[0x1A8] = 1);
        signed.with("chip id longer than the product's", "byte 63", |raw| raw[0x1DF] = 1);
    }
    if signed.forge.report.cpu.is_none() {
        return;
    }
    let product = signed.forge.product();
    let mut cpu = |fault, cpu: CpuIdentity| {
        signed.with(fault, cpu, |raw| {
            raw[0x188..0x18B].copy_from_slice(&[cpu.family, cpu.model, cpu.stepping]);
        });
    };
    for (family, model) in
        [(0, 0), (0x17, 0x31), (0x19, 0x20), (0x19, 0x9F), (0x19, 0xB0), (0x1A, 0x12), (0x1B, 1)]
    {
        cpu("unknown silicon", CpuIdentity { family, model, stepping: 1 });
    }
    let others = [(0x19, 0x01), (0x19, 0x11), (0x19, 0xA0), (0x1A, 0x02), (0x1A, 0x11)];
    for (family, model) in others {
        let other = CpuIdentity { family, model, stepping: 1 };
        if other.product() != Some(product) {
            cpu("silicon of another product", other);
        }
    }
}

/// Offsets of the levels in a TCB, by component.
fn levels(product: Product) -> Vec<(&'static str, usize)> {
    match product {
        Product::Milan | Product::Genoa => vec![("blSPL", 0), ("teeSPL", 1), ("snpSPL", 6), ("ucodeSPL", 7)],
        Product::Turin => vec![("fmcSPL", 0), ("blSPL", 1), ("teeSPL", 2), ("snpSPL", 3), ("ucodeSPL", 7)],
    }
}

fn tcbs(signed: &mut Signed<'_>) {
    const CURRENT: usize = 0x38;
    const REPORTED: usize = 0x180;
    const COMMITTED: usize = 0x1E0;
    for byte in 0..8 {
        signed.with(
            TCB_OF_THE_KEY[byte_name(signed.forge.product(), byte)],
            format!("byte {byte} lower"),
            |raw| {
                raw[REPORTED + byte] = raw[REPORTED + byte].wrapping_sub(1);
            },
        );
    }
    for (name, byte) in levels(signed.forge.product()) {
        let (reported, committed) = order_faults(name);
        signed.with(reported, "committed is lower", |raw| raw[COMMITTED + byte] -= 1);
        signed.with(committed, "current is lower", |raw| {
            raw[COMMITTED + byte] += 1;
        });
        signed.with(committed, "current is much lower", |raw| {
            raw[COMMITTED + byte] = 0xFF;
            raw[CURRENT + byte] = 0xFE;
        });
    }
}

/// A fault for each component, so that each has its own reason.
const TCB_OF_THE_KEY: [&str; 9] = [
    "another TCB than the key's: fmcSPL",
    "another TCB than the key's: blSPL",
    "another TCB than the key's: teeSPL",
    "another TCB than the key's: snpSPL",
    "another TCB than the key's: spl4",
    "another TCB than the key's: spl5",
    "another TCB than the key's: spl6",
    "another TCB than the key's: spl7",
    "another TCB than the key's: ucodeSPL",
];

/// Index into [`TCB_OF_THE_KEY`] of a TCB's byte.
fn byte_name(product: Product, byte: usize) -> usize {
    match product {
        Product::Milan | Product::Genoa => [1, 2, 4, 5, 6, 7, 3, 8][byte],
        Product::Turin => [0, 1, 2, 3, 5, 6, 7, 8][byte],
    }
}

fn order_faults(component: &str) -> (&'static str, &'static str) {
    match component {
        "fmcSPL" => ("reported above committed: fmcSPL", "committed above current: fmcSPL"),
        "blSPL" => ("reported above committed: blSPL", "committed above current: blSPL"),
        "teeSPL" => ("reported above committed: teeSPL", "committed above current: teeSPL"),
        "snpSPL" => ("reported above committed: snpSPL", "committed above current: snpSPL"),
        _ => ("reported above committed: ucodeSPL", "committed above current: ucodeSPL"),
    }
}

fn versions(signed: &mut Signed<'_>) {
    for (name, at) in [("build", 0x1E8), ("minor", 0x1E9), ("major", 0x1EA)] {
        signed.with("committed firmware above current", format!("current {name} lower"), |raw| raw[at] -= 1);
        signed.with("committed firmware above current", format!("committed {name} higher"), |raw| {
            raw[at + 4] += 1;
        });
    }
}
