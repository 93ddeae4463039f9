//! What a policy of 10, 100 and 1,000 rules costs: reading it once, and deciding on the claims of one report.
//!
//! The claims are as many as a SEV-SNP report and the service's own knowledge give. Every rule asks about one of them
//! and none denies, which is the usual and the most expensive case: every rule runs.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use policy::language::{Claim, Policy};

const CLAIMS: usize = 40;

fn claims() -> Vec<Claim> {
    (0..CLAIMS)
        .map(|number| {
            let name = format!("x-ms-sevsnpvm-claim-{number}");
            match number % 3 {
                0 => Claim::of_service(name, false),
                1 => Claim::of_service(name, 7),
                _ => Claim::of_service(name, "ab".repeat(48)),
            }
        })
        .collect()
}

fn rule(number: usize) -> String {
    let claim = format!("x-ms-sevsnpvm-claim-{}", number % CLAIMS);
    let condition = match (number % CLAIMS) % 3 {
        0 => "value==true".to_owned(),
        1 => format!("value<{}", number % 7),
        _ => format!("value==\"{}\"", "cd".repeat(48)),
    };
    format!("[type==\"{claim}\", {condition}, issuer==\"AttestationService\"] => deny();\n")
}

fn policy(rules: usize) -> String {
    let rules: String = (0..rules - 1).map(rule).collect();
    format!("version=1.2;\nauthorizationrules {{\n{rules}=> permit();\n}};")
}

/// A policy like the published ones: it asks an event log, and tells what it found.
fn querying() -> (String, Vec<Claim>) {
    let event = |sequence: usize| {
        format!(
            r#"{{"EventSeq": {sequence}, "EventTypeString": "EV_EVENT_TAG", "PcrIndex": {}, "ProcessedData": {{"Name": "n{sequence}", "Value": {sequence}}}}}"#,
            sequence % 14
        )
    };
    let events: Vec<String> = (0..100).map(event).collect();
    let log = format!(r#"{{"Events": [{}]}}"#, events.join(","));
    let rule = r#"c:[type=="events"] => issue(type="found", value=JsonToClaimValue(JmesPath(c.value, "Events[? EventTypeString == 'EV_EVENT_TAG' && PcrIndex == `12`].ProcessedData.Value")));"#;
    let text = format!(
        "version=1.2; authorizationrules {{ => permit(); }}; issuancerules {{ {} }};",
        rule.repeat(10)
    );
    (text, vec![Claim::of_service("events", log)])
}

fn rules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("evaluate");
    for rules in [10, 100, 1000] {
        let policy = Policy::parse(&policy(rules)).expect("a policy");
        let claims = claims();
        group.throughput(Throughput::Elements(rules as u64));
        group.bench_function(BenchmarkId::from_parameter(rules), |bencher| {
            bencher.iter_batched(
                || claims.clone(),
                |claims| policy.evaluate(black_box(claims)),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("parse");
    for rules in [10, 100, 1000] {
        let text = policy(rules);
        group.throughput(Throughput::Elements(rules as u64));
        group.bench_function(BenchmarkId::from_parameter(rules), |bencher| {
            bencher.iter(|| Policy::parse(black_box(&text)));
        });
    }
    group.finish();
    let (text, claims) = querying();
    let policy = Policy::parse(&text).expect("a policy");
    criterion.bench_function("ten queries of a log of 100 events", |bencher| {
        bencher.iter_batched(
            || claims.clone(),
            |claims| policy.evaluate(black_box(claims)),
            criterion::BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, rules);
criterion_main!(benches);
