//! Key-release policies: parsing, and evaluation over claims that come along.

use policy::release::{MAX_POLICY_BYTES, ReleasePolicy};
use serde_json::Value;

use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "release_policy",
    run,
    seeds,
    words: &[
        b"\"version\":\"1.0.0\"",
        b"\"anyOf\":[",
        b"\"allOf\":[",
        b"\"authority\":\"https://a.example\"",
        b"\"claim\":\"",
        b"\"equals\":",
        b"\"notEquals\":",
        b"\0",
    ],
    max_len: 4096,
};

const ISSUER: &str = "https://a.example";

/// A policy, a zero byte, the claims.
fn run(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (document, claims) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let Ok(policy) = ReleasePolicy::parse(document) else { return };
    assert!(document.len() <= MAX_POLICY_BYTES);
    assert!(policy.authorities().next().is_some(), "somebody has to be named");
    let refused = policy.evaluate("https://nobody.example", &Value::Object(serde_json::Map::new()));
    assert!(refused.is_err(), "no claims release nothing");
    let Ok(claims) = serde_json::from_slice::<Value>(claims) else { return };
    let decision = policy.evaluate(ISSUER, &claims);
    if let Ok(decision) = &decision {
        assert!(!decision.required().is_empty(), "a release rests on something");
        for condition in decision.required() {
            let found = condition.claim.find(&claims);
            assert!(decision.mentions(condition.claim.as_str(), &condition.value), "it is mentioned");
            assert!(found.is_some(), "a missing claim is false");
        }
    }
    assert_eq!(
        decision.is_ok(),
        policy.evaluate(ISSUER, &claims).is_ok(),
        "the same claims, the same decision"
    );
}

fn seeds() -> Vec<Vec<u8>> {
    let flat = r#"{"version":"1.0.0","anyOf":[{"authority":"https://a.example/","allOf":[{"claim":"x.y","equals":"z"},{"claim":"b","equals":true}]}]}"#;
    let nested = r#"{"version":"1.0.0","anyOf":[{"authority":"https://a.example","anyOf":[{"allOf":[{"claim":"n","equals":7}]},{"claim":"b","equals":false}]}]}"#;
    let claims = r#"{"x":{"y":"z"},"b":true,"n":7}"#;
    [flat, nested].map(|policy| [policy.as_bytes(), &[0], claims.as_bytes()].concat()).to_vec()
}
