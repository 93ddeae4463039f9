//! The negative corpus: evidence of every kind with one fault each, and the reason for which it is refused.
//!
//! `negative-corpus.txt` lists every case with our reason and the kinds of evidence that it was made of; two different faults have two different reasons, or
//! [`equalities::EQUALITIES`] says why not. `negative-corpus-sev.txt` lists the faults that the crate `sev` accepts;
//! [`equalities::RIGHT_TO_REFUSE`] says why we do not.

mod case;
mod certificates;
mod equalities;
mod lists;
mod reports;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use expect_test::expect_file;
use snp::Product;

use crate::corpus::case::{Bundle, Case, Cases};
use crate::corpus::equalities::{EQUALITIES, RIGHT_TO_REFUSE};
use crate::forge::Forge;

/// A kind of evidence; `whole` when the faults of certificates and lists, which most kinds share, are made of it too.
struct Kind {
    name: String,
    forge: Forge,
    whole: bool,
}

/// Every kind: product, report version, key.
fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for (product, version, vlek, whole) in [
        (Product::Milan, 2, false, false),
        (Product::Milan, 3, false, true),
        (Product::Genoa, 4, false, false),
        (Product::Genoa, 5, false, false),
        (Product::Turin, 5, false, true),
        (Product::Milan, 3, true, true),
        (Product::Turin, 5, true, false),
    ] {
        let forge = Forge::new(product).version(version);
        let (forge, key) = if vlek { (forge.vlek(), "VLEK") } else { (forge, "VCEK") };
        kinds.push(Kind { name: format!("{product} v{version} {key}"), forge, whole });
    }
    kinds
}

/// Our verdict and `sev`'s.
struct Judged {
    case: Case,
    refusal: Option<String>,
    accepted_by_sev: bool,
}

static CORPUS: LazyLock<Vec<Judged>> = LazyLock::new(|| {
    let mut found = Vec::new();
    for Kind { name, forge, whole } in kinds() {
        let mut cases = Cases::new(name);
        reports::cases(&mut cases, &forge);
        if whole {
            certificates::cases(&mut cases, &forge);
            lists::cases(&mut cases, &forge);
        }
        found.extend(cases.found);
    }
    let mut cases = Cases::new("recorded Milan v2 VCEK");
    certificates::recorded(&mut cases);
    found.extend(cases.found);
    found.into_iter().map(judge).collect()
});

fn judge(case: Case) -> Judged {
    let (refusal, accepted_by_sev) = (case.bundle.refusal(), case.bundle.accepted_by_sev());
    Judged { case, refusal, accepted_by_sev }
}

#[test]
fn every_kind_of_evidence_verifies_without_a_fault() {
    for Kind { name, forge, .. } in kinds() {
        let bundle = Bundle::made(&forge.parts());
        assert_eq!(bundle.refusal(), None, "{name}");
        assert!(bundle.accepted_by_sev(), "{name}");
    }
}

#[test]
fn every_case_is_refused_for_the_recorded_reason() {
    assert!(CORPUS.len() >= 400, "{} cases", CORPUS.len());
    let names: BTreeSet<(&str, &str)> = CORPUS.iter().map(|judged| judged.case.names()).collect();
    assert_eq!(names.len(), CORPUS.len(), "a name is a case's own");
    let accepted = CORPUS.iter().filter(|judged| judged.refusal.is_none());
    let accepted: Vec<_> = accepted.map(|judged| judged.case.names()).collect();
    assert!(accepted.is_empty(), "accepted: {accepted:?}");
    let mut kinds: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for Judged { case, refusal, .. } in CORPUS.iter() {
        kinds.entry((&case.name, refusal.as_deref().unwrap_or_default())).or_default().push(&case.kind);
    }
    let mut text = format!("{} cases\n", CORPUS.len());
    for ((name, refusal), kinds) in kinds {
        text += &format!("{name} => {refusal} [{}]\n", kinds.join(", "));
    }
    expect_file!["../../data/negative-corpus.txt"].assert_eq(&text);
}

#[test]
fn different_faults_have_different_reasons() {
    let mut faults: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for judged in CORPUS.iter() {
        faults.entry(judged.refusal.as_deref().unwrap_or_default()).or_default().insert(judged.case.fault);
    }
    faults.retain(|_, faults| faults.len() > 1);
    let listed: BTreeMap<&str, BTreeSet<&str>> =
        EQUALITIES.iter().map(|(reason, faults, _)| (*reason, faults.iter().copied().collect())).collect();
    assert_eq!(faults, listed, "found on the left, listed on the right");
    assert!(EQUALITIES.iter().all(|(_, _, why)| !why.is_empty()));
}

#[test]
fn where_sev_accepts_what_we_refuse_a_line_says_why_we_are_right() {
    let mut faults: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for judged in CORPUS.iter() {
        let (accepted, of) = faults.entry(judged.case.fault).or_default();
        (*accepted, *of) = (*accepted + usize::from(judged.accepted_by_sev), *of + 1);
    }
    faults.retain(|_, (accepted, _)| *accepted > 0);
    let mut text = String::new();
    for (fault, (accepted, of)) in &faults {
        let why = RIGHT_TO_REFUSE.iter().find(|(_, faults)| faults.contains(fault)).map(|(why, _)| *why);
        let why = why.unwrap_or("Nobody says why we are right.");
        text += &format!("{fault}: sev accepts {accepted} of {of}. {why}\n");
    }
    let listed: BTreeSet<&str> = RIGHT_TO_REFUSE.iter().flat_map(|(_, faults)| *faults).copied().collect();
    assert_eq!(
        listed,
        faults.keys().copied().collect(),
        "a line for what `sev` accepts, and for nothing else"
    );
    expect_file!["../../data/negative-corpus-sev.txt"].assert_eq(&text);
}
