//! Whatever the bytes, parsing and evaluation end in an answer: no panic, no overflow, no long run.

use policy::language::{Claim, Policy};
use proptest::prelude::*;

const SEEDS: [&str; 4] = [
    include_str!("../published/tpm-1-2.txt"),
    include_str!("../published/features-1-2.txt"),
    include_str!("../published/function-rules.txt"),
    include_str!("../published/tpm-1-1.txt"),
];

fn claims() -> Vec<Claim> {
    let events = r#"{"Events": [{"EventSeq": 1, "EventTypeString": "EV_EVENT_TAG", "PcrIndex": 12,
        "ProcessedData": {"EVENT_TRUSTBOUNDARY": {"EVENT_APPLICATION_SVN": 3}}}]}"#;
    vec![
        Claim::of_service("events", events),
        Claim::of_service("pcrs", r#"{"PCRs": []}"#).read_only(),
        Claim::of_service("JsonData", "[1, [2], {\"a\": null}]"),
        Claim::of_service("JmesPathQuery", "[1]"),
        Claim::of_service("Set", 100),
    ]
}

fn ends(text: &str) {
    if let Ok(policy) = Policy::parse(text) {
        let _ = policy.evaluate(claims());
        let _ = policy.configuration(&claims());
    }
}

/// A mutation: where, how much is taken away, and what is put in its place.
fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, String)>> {
    let inserted = prop_oneof![
        "[\\[\\]{}()&|!@*.`'\"=<>,:; ]{0,4}",
        "\\PC{0,3}",
        Just("=> permit();".to_owned()),
        Just("JmesPath(".to_owned()),
        Just("\\".to_owned()),
        Just("[@,@][]".to_owned()),
        Just("!".repeat(600)),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), 0..12usize, inserted), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn arbitrary_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        ends(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn mutated_policies_end(seed in 0..SEEDS.len(), mutations in mutations()) {
        let mut text: Vec<char> = SEEDS[seed].chars().collect();
        for (place, removed, inserted) in mutations {
            let start = place.index(text.len() + 1);
            let end = (start + removed).min(text.len());
            text.splice(start..end, inserted.chars());
        }
        ends(&text.into_iter().collect::<String>());
    }

    #[test]
    fn arbitrary_expressions_on_arbitrary_json_end(
        query in "[a-c@*.\\[\\]{}()&|!?:`'\"<>=,0-9 -]{0,40}", json in "[\\[\\]{}:,\"a-c0-9 ]{0,40}",
    ) {
        let rule = r#"version=1.2; authorizationrules { q:[type=="q"] && j:[type=="j"] => add(type="r", value=JsonToClaimValue(JmesPath(j.value, q.value))); => permit(); };"#;
        let policy = Policy::parse(rule).expect("a policy");
        let _ = policy.evaluate(vec![Claim::of_service("q", query), Claim::of_service("j", json)]);
    }
}
