//! Faults of the certificates: dates, names, algorithms, keys, extensions, their order, their bytes.

use snp::{Product, SigningKey, extensions as oids};
use x509_cert::certificate::Version;
use x509_cert::der::oid::ObjectIdentifier;

use crate::corpus::case::{Bundle, Cases, Certificates};
use crate::forge::{Algorithm, Forge, Key, LeafKey, Paper, extension};
use crate::support::{Evidence, NOW};

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const UNKNOWN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.3.4");

/// A certificate of the chain: its part of the forge, its place, and its faults' names.
struct Part {
    paper: fn(&mut Forge) -> &mut Paper,
    place: usize,
    early: &'static str,
    late: &'static str,
    issuer: &'static str,
    signature: &'static str,
    algorithm: &'static str,
    named: &'static str,
    critical: &'static str,
    version: &'static str,
    bytes: &'static str,
}

const LEAF: Part = Part {
    paper: |forge| &mut forge.leaf,
    place: 0,
    early: "leaf not yet valid",
    late: "leaf expired",
    issuer: "leaf of another issuer",
    signature: "leaf signed by another key",
    algorithm: "leaf signed by another algorithm",
    named: "leaf names two algorithms",
    critical: "leaf with an unknown critical extension",
    version: "leaf not of version 3",
    bytes: "leaf is no certificate",
};

const ASK: Part = Part {
    paper: |forge| &mut forge.ask,
    place: 1,
    early: "intermediate not yet valid",
    late: "intermediate expired",
    issuer: "intermediate of another issuer",
    signature: "intermediate signed by another key",
    algorithm: "intermediate signed by another algorithm",
    named: "intermediate names two algorithms",
    critical: "intermediate with an unknown critical extension",
    version: "intermediate not of version 3",
    bytes: "intermediate is no certificate",
};

pub(super) fn cases(cases: &mut Cases, forge: &Forge) {
    for part in [LEAF, ASK] {
        dates(cases, forge, &part);
        signatures(cases, forge, &part);
        der(cases, forge, part.place, part.bytes);
    }
    let ark = |forge: &mut Forge, before: i64, after: i64| {
        (forge.ark.not_before, forge.ark.not_after) = (NOW.0 + before, NOW.0 + after);
    };
    cases.forged(forge, "root not yet valid", "by a second", |forge| ark(forge, 1, 9));
    cases.forged(forge, "root expired", "by a second", |forge| ark(forge, -9, -1));
    der(cases, forge, 2, "root is no certificate");
    authorities(cases, forge);
    leaf_keys(cases, forge);
    order(cases, forge);
    roots(cases, forge);
    pem(cases, forge);
    levels(cases, forge);
    products(cases, forge);
    owners(cases, forge);
}

fn dates(cases: &mut Cases, forge: &Forge, part: &Part) {
    for (form, seconds) in [("by a second", 1), ("by a year", 31_536_000)] {
        cases.forged(forge, part.early, form, |forge| {
            let paper = (part.paper)(forge);
            (paper.not_before, paper.not_after) = (NOW.0 + seconds, NOW.0 + 2 * seconds);
        });
        cases.forged(forge, part.late, form, |forge| {
            let paper = (part.paper)(forge);
            (paper.not_before, paper.not_after) = (NOW.0 - 2 * seconds, NOW.0 - seconds);
        });
    }
}

fn signatures(cases: &mut Cases, forge: &Forge, part: &Part) {
    let mut with = |fault, form: &str, change: &dyn Fn(&mut Paper)| {
        cases.forged(forge, fault, form, |forge| change((part.paper)(forge)));
    };
    with(part.issuer, "another name", &|paper| paper.issuer = "CN=somebody".to_owned());
    with(part.issuer, "its own name", &|paper| paper.issuer = paper.subject.clone());
    with(part.signature, "a stranger's", &|paper| paper.signed_by = Key::Stranger);
    with(part.signature, "PKCS#1 under the name of PSS", &|paper| paper.algorithm = Algorithm::Pkcs1AsPss);
    with(part.algorithm, "PSS with SHA-256", &|paper| paper.algorithm = Algorithm::PssSha256);
    with(part.algorithm, "PKCS#1", &|paper| paper.algorithm = Algorithm::Pkcs1);
    with(part.named, "outside PKCS#1", &|paper| paper.named = Some(Algorithm::Pkcs1));
    with(part.named, "outside SHA-256", &|paper| paper.named = Some(Algorithm::PssSha256));
    with(part.named, "outside without trailer", &|paper| {
        paper.named = Some(Algorithm::Pss { trailer: false })
    });
    with(part.critical, "of nobody", &|paper| paper.extensions.push(extension(UNKNOWN, true, &[5, 0])));
    with(part.version, "version 1", &|paper| paper.version = Version::V1);
    with(part.version, "version 2", &|paper| paper.version = Version::V2);
    let made = forge.parts();
    for (form, from_end) in [("last byte", 1), ("first byte of the signature", 512)] {
        let mut bundle = Bundle::made(&made);
        let der = &mut bundle.der()[part.place];
        let at = der.len() - from_end;
        der[at] ^= 1;
        cases.add(part.signature, format!("altered, {form}"), bundle);
    }
}

/// Bytes that are no certificate: each length off by one, and worse.
fn der(cases: &mut Cases, forge: &Forge, place: usize, fault: &'static str) {
    let made = forge.parts();
    let mut with = |form: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bundle = Bundle::made(&made);
        change(&mut bundle.der()[place]);
        cases.add(fault, form, bundle);
    };
    with("empty", &|der| der.clear());
    with("a byte short", &|der| der.truncate(der.len() - 1));
    with("a byte more", &|der| der.push(0));
    with("twice", &|der| der.extend(der.clone()));
    with("half", &|der| der.truncate(der.len() / 2));
    with("length one more", &|der| der[3] = der[3].wrapping_add(1));
    with("length one less", &|der| der[3] = der[3].wrapping_sub(1));
    with("indefinite length", &|der| der[1] = 0x80);
    with("a set", &|der| der[0] = 0x31);
}

fn authorities(cases: &mut Cases, forge: &Forge) {
    let fault = "intermediate is no issuer";
    cases.forged(forge, fault, "no basic constraints", |forge| forge.ask.remove(BASIC_CONSTRAINTS));
    cases.forged(forge, fault, "CA false", |forge| forge.ask.set(BASIC_CONSTRAINTS, &[0x30, 0]));
    cases.forged(forge, fault, "malformed", |forge| forge.ask.set(BASIC_CONSTRAINTS, &[0x30, 3, 1, 1]));
    cases.forged(forge, fault, "doubled", |forge| double(&mut forge.ask, BASIC_CONSTRAINTS));
    let fault = "intermediate may not sign certificates";
    cases.forged(forge, fault, "only revocation lists", |forge| forge.ask.set(KEY_USAGE, &[3, 2, 1, 2]));
    cases.forged(forge, fault, "only data", |forge| forge.ask.set(KEY_USAGE, &[3, 2, 7, 0x80]));
    cases.forged(forge, fault, "malformed", |forge| forge.ask.set(KEY_USAGE, &[3]));
    cases.forged(forge, "intermediate's key", "2,048 bits", |forge| {
        (forge.ask_key, forge.leaf.signed_by) = (Key::Small, Key::Small);
    });
    cases.forged(forge, "leaf is an issuer", "CA true", |forge| {
        forge.leaf.extensions.push(extension(BASIC_CONSTRAINTS, true, &[0x30, 3, 1, 1, 0xFF]));
    });
}

fn double(paper: &mut Paper, oid: ObjectIdentifier) {
    let copy = paper.extensions.iter().find(|e| e.extn_id == oid).expect("it is there").clone();
    paper.extensions.push(copy);
}

fn leaf_keys(cases: &mut Cases, forge: &Forge) {
    let kinds =
        [("P-256", LeafKey::P256), ("P-384 named P-256", LeafKey::P384NamedP256), ("RSA", LeafKey::Rsa)];
    for (form, kind) in kinds {
        cases.forged(forge, "leaf's key", form, |forge| forge.leaf_key = kind);
    }
}

fn order(cases: &mut Cases, forge: &Forge) {
    let made = forge.parts();
    let [leaf, ask, ark] = [&made.leaf, &made.ask, &made.ark];
    let orders: [(&str, &str, [&Vec<u8>; 3]); 6] = [
        ("order of the chain: a root that is none", "reversed", [ark, ask, leaf]),
        ("order of the chain: a root that is none", "root in the middle", [leaf, ark, ask]),
        ("order of the chain: a root that is none", "intermediate last", [ark, leaf, ask]),
        ("order of the chain: a leaf of the root", "intermediate first", [ask, leaf, ark]),
        ("leaf left out", "intermediate twice", [ask, ask, ark]),
        ("leaf left out", "root thrice", [ark, ark, ark]),
    ];
    for (fault, form, der) in orders {
        let certificates = Certificates::Der(der.map(Clone::clone));
        cases.add(fault, form, Bundle { certificates, ..Bundle::made(&made) });
    }
    let mut bundle = Bundle::made(&made);
    bundle.der()[1] = made.ark.clone();
    cases.add("leaf of another issuer", "intermediate left out", bundle);
    let mut bundle = Bundle::made(&made);
    bundle.der()[1] = forge.parts().leaf;
    cases.add("order of the chain: a leaf of the root", "a leaf in the middle", bundle);
}

fn roots(cases: &mut Cases, forge: &Forge) {
    let made = forge.parts();
    let fault = "root not trusted";
    let alone = Bundle { root: None, ..Bundle::made(&made) };
    cases.add(fault, "development root where only AMD is trusted", alone);
    let mut another = Bundle::made(&made);
    another.der()[2] = forge.root();
    cases.add(fault, "the same key and name, signed anew", another);
    let mut altered = Bundle::made(&made);
    *altered.der()[2].last_mut().expect("a certificate") ^= 1;
    cases.add(fault, "altered", altered);
    for product in Product::ALL {
        let mut amd = Bundle::made(&made);
        amd.der()[2] = snp::amd_ark_der(product).to_vec();
        cases.add("intermediate of another issuer", format!("AMD's root of {product}"), amd);
        let mut amd = Bundle::made(&made);
        amd.der()[1] = snp::amd_ask_der(product).to_vec();
        cases.add("intermediate of another issuer", format!("AMD's intermediate of {product}"), amd);
        let root = Some(snp::amd_ark_der(product).to_vec());
        cases.add("AMD's root as a development root", product, Bundle { root, ..Bundle::made(&made) });
    }
    let mut anchor = |fault, form: &str, change: &dyn Fn(&mut Forge)| {
        cases.forged(forge, fault, form, |forge| change(forge));
    };
    anchor("root of another issuer", "another name", &|forge| forge.ark.issuer = "CN=somebody".to_owned());
    anchor("root signed by another key", "a stranger's", &|forge| forge.ark.signed_by = Key::Stranger);
    anchor("root signed by another algorithm", "PKCS#1", &|forge| forge.ark.algorithm = Algorithm::Pkcs1);
    anchor("root names two algorithms", "outside PKCS#1", &|forge| forge.ark.named = Some(Algorithm::Pkcs1));
    anchor("root not of version 3", "version 1", &|forge| forge.ark.version = Version::V1);
    anchor("root is no issuer", "no basic constraints", &|forge| forge.ark.remove(BASIC_CONSTRAINTS));
    anchor("root may not sign certificates", "only data", &|forge| {
        forge.ark.set(KEY_USAGE, &[3, 2, 7, 0x80])
    });
    anchor("root with an unknown critical extension", "of nobody", &|forge| {
        forge.ark.extensions.push(extension(UNKNOWN, true, &[5, 0]));
    });
}

fn pem(cases: &mut Cases, forge: &Forge) {
    let (made, text) = (forge.parts(), forge.make().0.to_pem());
    let parts: Vec<&str> = text.split_inclusive("-----END CERTIFICATE-----\n").collect();
    let mut with = |fault, form: &str, text: Vec<u8>| {
        let certificates = Certificates::Pem(text);
        cases.add(fault, form, Bundle { certificates, ..Bundle::made(&made) });
    };
    with("number of certificates", "none", Vec::new());
    with("number of certificates", "leaf alone", parts[0].into());
    with("number of certificates", "root missing", parts[..2].concat().into());
    with("number of certificates", "leaf missing", parts[1..].concat().into());
    with("number of certificates", "one too many", [&parts[..], &parts[2..]].concat().concat().into());
    with("PEM", "not text", b"\xFF\xFE".to_vec());
    with("PEM", "no END line", text.trim_end().trim_end_matches("-----END CERTIFICATE-----").into());
    with("PEM", "not base64", text.replacen("MII", "M!!", 1).into());
    with("PEM", "padding in the middle", text.replacen("MII", "M=I", 1).into());
}

/// The levels of a product by AMD's names, with the faults of each.
const LEVELS: [(ObjectIdentifier, [&str; 3]); 9] = [
    (oids::BL_SPL, ["blSPL missing", "blSPL doubled", "blSPL malformed"]),
    (oids::TEE_SPL, ["teeSPL missing", "teeSPL doubled", "teeSPL malformed"]),
    (oids::SNP_SPL, ["snpSPL missing", "snpSPL doubled", "snpSPL malformed"]),
    (oids::SPL_4, ["spl4 missing", "spl4 doubled", "spl4 malformed"]),
    (oids::SPL_5, ["spl5 missing", "spl5 doubled", "spl5 malformed"]),
    (oids::SPL_6, ["spl6 missing", "spl6 doubled", "spl6 malformed"]),
    (oids::SPL_7, ["spl7 missing", "spl7 doubled", "spl7 malformed"]),
    (oids::UCODE_SPL, ["ucodeSPL missing", "ucodeSPL doubled", "ucodeSPL malformed"]),
    (oids::FMC_SPL, ["fmcSPL missing", "fmcSPL doubled", "fmcSPL malformed"]),
];

fn levels(cases: &mut Cases, forge: &Forge) {
    let other = if forge.product() == Product::Turin { oids::SPL_4 } else { oids::FMC_SPL };
    for (oid, [missing, doubled, malformed]) in LEVELS.into_iter().filter(|(oid, _)| *oid != other) {
        cases.forged(forge, missing, "left out", |forge| forge.leaf.remove(oid));
        cases.forged(forge, doubled, "the same again", |forge| double(&mut forge.leaf, oid));
        let forms: [(&str, &[u8]); 6] = [
            ("empty", &[]),
            ("cut off", &[2, 1]),
            ("negative", &[2, 1, 0x80]),
            ("above 255", &[2, 2, 1, 0]),
            ("not the shortest", &[2, 2, 0, 1]),
            ("octets", &[4, 1, 1]),
        ];
        for (form, value) in forms {
            cases.forged(forge, malformed, form, |forge| forge.leaf.set(oid, value));
        }
    }
}

fn products(cases: &mut Cases, forge: &Forge) {
    let oid = oids::PRODUCT_NAME;
    cases.forged(forge, "productName missing", "left out", |forge| forge.leaf.remove(oid));
    cases.forged(forge, "productName doubled", "the same again", |forge| double(&mut forge.leaf, oid));
    let unknown: [(&str, &[u8]); 4] = [
        ("Naples", b"\x16\x06Naples"),
        ("empty", b"\x16\x00"),
        ("lower case", b"\x16\x05milan"),
        ("longer", b"\x16\x06Milano"),
    ];
    for (form, value) in unknown {
        cases.forged(forge, "productName of no product", form, |forge| forge.leaf.set(oid, value));
    }
    let malformed: [(&str, &[u8]); 3] =
        [("no tag", b"Milan"), ("a number", &[2, 1, 1]), ("cut off", b"\x16\x06Milan")];
    for (form, value) in malformed {
        cases.forged(forge, "productName malformed", form, |forge| forge.leaf.set(oid, value));
    }
}

fn owners(cases: &mut Cases, forge: &Forge) {
    let vcek = forge.report.signing_key == SigningKey::Vcek;
    let (own, other) = if vcek { (oids::HWID, oids::CSP_ID) } else { (oids::CSP_ID, oids::HWID) };
    cases.forged(forge, "neither hwID nor cspID", "left out", |forge| forge.leaf.remove(own));
    cases.forged(forge, "both hwID and cspID", "added", |forge| {
        let value: &[u8] = if vcek { b"\x16\x01x" } else { &[0xC7; 64] };
        forge.leaf.extensions.push(extension(other, false, value));
    });
    let doubled = if vcek { "hwID doubled" } else { "cspID doubled" };
    cases.forged(forge, doubled, "the same again", |forge| double(&mut forge.leaf, own));
    if vcek {
        let len = forge.product().chip_id_len();
        for len in [0, 1, len - 1, len + 1, 2 * len] {
            cases.forged(forge, "hwID malformed", format!("{len} bytes"), |forge| {
                forge.leaf.set(own, &vec![0xC7; len]);
            });
        }
        cases.forged(forge, "another chip", "certificate of another", |forge| {
            forge.leaf.set(own, &vec![0xC8; len]);
        });
    } else {
        for (form, value) in [("no tag", &b"provider"[..]), ("a number", &[2, 1, 1]), ("empty", &[])] {
            cases.forged(forge, "cspID malformed", form, |forge| forge.leaf.set(own, value));
        }
    }
    cases.forged(forge, "leaf's subject", "of the other kind", |forge| {
        forge.leaf.subject = format!("CN={}", if vcek { "SEV-VLEK" } else { "SEV-VCEK" });
    });
    cases.forged(forge, "leaf's subject", "somebody", |forge| forge.leaf.subject = "CN=somebody".to_owned());
    cases.forged(forge, "issuer of the other kind", "by its name", |forge| {
        let name = if vcek { "CN=SEV-VLEK-test" } else { "CN=SEV-test" };
        (forge.leaf.issuer, forge.ask.subject) = (name.to_owned(), name.to_owned());
    });
}

/// A recorded report and VCEK with AMD's certificates of other products.
pub(super) fn recorded(cases: &mut Cases) {
    let milan = Evidence::milan();
    for product in [Product::Genoa, Product::Turin] {
        let (ask, ark) = (snp::amd_ask_der(product).to_vec(), snp::amd_ark_der(product).to_vec());
        let mixed = Evidence { ask: ask.clone(), ..milan.clone() };
        cases.add("intermediate of another issuer", format!("of {product}"), Bundle::recorded(&mixed));
        let mixed = Evidence { ask, ark: ark.clone(), ..milan.clone() };
        cases.add("leaf of another issuer", format!("chain of {product}"), Bundle::recorded(&mixed));
        let mixed = Evidence { ark, ..milan.clone() };
        cases.add("intermediate of another issuer", format!("root of {product}"), Bundle::recorded(&mixed));
    }
    let mut forge = Forge::milan();
    forge.leaf.issuer = name_of_amd("SEV-Milan");
    let made = forge.parts();
    let forged = Evidence { leaf: made.leaf, report: made.report, ..milan };
    cases.add("leaf signed by another key", "under AMD's intermediate", Bundle::recorded(&forged));
}

fn name_of_amd(name: &str) -> String {
    format!("CN={name},O=Advanced Micro Devices,ST=CA,L=Santa Clara,C=US,OU=Engineering")
}
