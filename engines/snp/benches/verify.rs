//! A warm verification beside the bare P-384 verification that it cannot do without, and beside the crate `sev`.
//!
//! `cargo bench -p snp --bench verify`. The evidence is the recorded Milan report. `aws_lc_p384` checks its signature
//! under a key that was parsed before, over the raw bytes, and nothing else.
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]

use std::hint::black_box;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey, UnparsedPublicKey};
use criterion::{Criterion, criterion_group, criterion_main};
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;
use snp::{CertChain, ChainDer, Crls, Product, TrustAnchors, UnixTime, VerifiedChains};

const REPORT: &[u8] = include_bytes!("../tests/data/sev-milan-report.bin");
const VCEK: &[u8] = include_bytes!("../tests/data/sev-milan-vcek.der");
const NOW: UnixTime = UnixTime(1_770_000_000);

/// r and s, big endian, from the report's little-endian fields.
fn signature() -> Vec<u8> {
    let parts = [&REPORT[0x2A0..0x2D0], &REPORT[0x2E8..0x318]];
    parts.into_iter().flat_map(|part| part.iter().rev()).copied().collect()
}

/// The point of the VCEK's key: 4, x, y behind the curve P-384.
fn point() -> Vec<u8> {
    const CURVE: &[u8] = &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00];
    let at = VCEK.windows(CURVE.len()).position(|window| window == CURVE).expect("a key on P-384");
    VCEK[at + CURVE.len()..][..97].to_vec()
}

fn sev_chain() -> Chain {
    let read = |der: &[u8]| Certificate::from_der(der).expect("a certificate");
    let (ark, ask) = (read(snp::amd_ark_der(Product::Milan)), read(snp::amd_ask_der(Product::Milan)));
    Chain { ca: ca::Chain { ark, ask }, vek: read(VCEK) }
}

fn primitive(c: &mut Criterion) {
    let (point, signature) = (point(), signature());
    let message = &REPORT[..0x2A0];
    let parsed = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point).expect("a key");
    c.bench_function("aws_lc_p384", |b| {
        b.iter(|| parsed.verify_sig(black_box(message), &signature).expect("valid"));
    });
    let unparsed = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point);
    c.bench_function("aws_lc_p384_key_parsed_each_time", |b| {
        b.iter(|| unparsed.verify(black_box(message), &signature).expect("valid"));
    });
}

fn ours(c: &mut Criterion) {
    let (ask, ark) = (snp::amd_ask_der(Product::Milan), snp::amd_ark_der(Product::Milan));
    let der = ChainDer::new(VCEK.to_vec(), ask.to_vec(), ark.to_vec());
    let pem = CertChain::parse(&der).expect("three certificates").to_pem();
    let (anchors, crls, warm) = (TrustAnchors::amd(), Crls::default(), VerifiedChains::new(16));
    c.bench_function("warm", |b| {
        b.iter(|| warm.verify(black_box(REPORT), &der, &anchors, &crls, NOW).expect("verifies"));
    });
    c.bench_function("warm_from_pem", |b| {
        b.iter(|| {
            let der = ChainDer::from_pem(black_box(pem.as_bytes())).expect("PEM");
            warm.verify(REPORT, &der, &anchors, &crls, NOW).expect("verifies")
        });
    });
    c.bench_function("cold", |b| {
        b.iter(|| {
            let chain = CertChain::parse(black_box(&der)).expect("three certificates");
            snp::verify(REPORT, &chain, &anchors, &crls, NOW).expect("verifies")
        });
    });
}

fn peer(c: &mut Criterion) {
    let chain = sev_chain();
    c.bench_function("crate_sev_signatures_only", |b| {
        b.iter(|| {
            let report = AttestationReport::from_bytes(black_box(REPORT)).expect("a report");
            (&chain, &report).verify().expect("verifies");
        });
    });
}

criterion_group!(benches, primitive, ours, primitive, peer);
criterion_main!(benches);
