//! What is released, what is refused and in which words, and what does not parse.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://attest.example";

fn policy(document: &Value) -> ReleasePolicy {
    ReleasePolicy::parse(document.to_string().as_bytes()).expect("the test's policy is a policy")
}

/// One authority with the given conditions, as people write it: with a slash at the end.
fn under_issuer(kind: &str, conditions: Value) -> Value {
    json!({"version": "1.0.0", "anyOf": [{"authority": "https://attest.example/", kind: conditions}]})
}

fn refusal(document: &Value, issuer: &str, claims: &Value, expected: Expect) {
    let refusal = policy(document).evaluate(issuer, claims).expect_err("must be refused");
    expected.assert_eq(&refusal.to_string());
}

fn unreadable(document: &str, expected: Expect) {
    let error = ReleasePolicy::parse(document.as_bytes()).expect_err("must not parse");
    expected.assert_eq(&error.to_string());
}

fn claims() -> Value {
    json!({
        "x-ms-compliance-status": "azure-compliant-cvm",
        "x-ms-attestation-type": "sevsnpvm",
        "x-ms-sevsnpvm-guestsvn": 7,
        "x-ms-sevsnpvm-is-debuggable": false,
        "x-casemate-trust-root": "development",
        "x-ms-inittime": {"vmId": "AB", "list": [{"a": 1}]},
    })
}

#[test]
fn the_default_policy_of_the_azure_command_line_releases() {
    let document =
        under_issuer("allOf", json!([{"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"}]));
    let decision = policy(&document).evaluate(ISSUER, &claims()).expect("released");
    assert_eq!(decision.authority(), "https://attest.example/");
    assert!(decision.mentions("x-ms-compliance-status", &json!("azure-compliant-cvm")));
    assert!(!decision.mentions("x-casemate-trust-root", &json!("development")));
}

#[test]
fn a_slash_at_the_end_a_default_port_and_the_hosts_case_do_not_matter() {
    let document = under_issuer("anyOf", json!([{"claim": "x-ms-attestation-type", "equals": "sevsnpvm"}]));
    for issuer in [ISSUER, "https://attest.example/", "https://ATTEST.example", "https://attest.example:443"]
    {
        policy(&document).evaluate(issuer, &claims()).expect(issuer);
    }
}

#[test]
fn another_issuer_is_refused() {
    let document = under_issuer("allOf", json!([{"claim": "x-ms-attestation-type", "equals": "sevsnpvm"}]));
    for issuer in [
        "https://attest.example:444",
        "http://attest.example",
        "https://attest.example/other",
        "https://attest.example//",
        "https://attest.example.evil",
        "https://user@attest.example",
        "https://attest.example?x=1",
        "",
        "nonsense",
    ] {
        let refusal = policy(&document).evaluate(issuer, &claims()).expect_err(issuer);
        assert_eq!(refusal.claim, "iss");
    }
    refusal(
        &document,
        "https://evil.example",
        &claims(),
        expect![
            "iss: expected https://attest.example/, found https://evil.example (rule: anyOf[*].authority of the release policy)"
        ],
    );
}

#[test]
fn a_wrong_claim_is_refused_with_its_place() {
    refusal(
        &under_issuer(
            "allOf",
            json!([
                {"claim": "x-ms-attestation-type", "equals": "sevsnpvm"},
                {"claim": "x-ms-inittime.vmId", "equals": "CD"},
            ]),
        ),
        ISSUER,
        &claims(),
        expect![[
            r#"x-ms-inittime.vmId: expected "CD", found "AB" (rule: anyOf[0].allOf[1] of the release policy: x-ms-inittime.vmId equals "CD")"#
        ]],
    );
}

#[test]
fn alternatives_of_one_claim_are_told_together() {
    refusal(
        &under_issuer(
            "allOf",
            json!([{"anyOf": [
                {"claim": "x-casemate-trust-root", "equals": "amd"},
                {"claim": "x-casemate-trust-root", "equals": "other"},
            ]}]),
        ),
        ISSUER,
        &claims(),
        expect![[
            r#"x-casemate-trust-root: expected "amd" or "other", found "development" (rule: anyOf[0].allOf[0].anyOf of the release policy)"#
        ]],
    );
}

#[test]
fn alternatives_of_several_claims_tell_the_first_and_the_number_of_the_others() {
    refusal(
        &under_issuer(
            "anyOf",
            json!([{"claim": "nowhere", "equals": true}, {"claim": "x-ms-attestation-type", "equals": "tdxvm"}]),
        ),
        ISSUER,
        &claims(),
        expect![
            "nowhere: expected true, found missing (rule: anyOf[0].anyOf[0] of the release policy: nowhere equals true (and 1 more alternatives of anyOf[0].anyOf))"
        ],
    );
}

#[test]
fn a_path_never_leads_into_an_array_or_a_scalar() {
    for claim in
        ["x-ms-inittime.list.0.a", "x-ms-inittime.list", "x-ms-attestation-type.length", "x-ms-inittime"]
    {
        let document = under_issuer("allOf", json!([{"claim": claim, "equals": 1}]));
        policy(&document).evaluate(ISSUER, &claims()).expect_err(claim);
    }
}

#[test]
fn values_are_compared_by_type() {
    let cases = [
        ("x-ms-sevsnpvm-guestsvn", json!(7), true),
        ("x-ms-sevsnpvm-guestsvn", json!("7"), false),
        ("x-ms-sevsnpvm-guestsvn", json!(7.0), false),
        ("x-ms-sevsnpvm-is-debuggable", json!(false), true),
        ("x-ms-sevsnpvm-is-debuggable", json!("false"), false),
        ("x-ms-attestation-type", json!("SEVSNPVM"), false),
    ];
    for (claim, value, released) in cases {
        let document = under_issuer("allOf", json!([{"claim": claim, "equals": value}]));
        let decision = policy(&document).evaluate(ISSUER, &claims());
        assert_eq!(decision.is_ok(), released, "{claim} equals {value}");
    }
}

#[test]
fn a_development_root_is_mentioned_only_if_no_satisfied_branch_does_without() {
    let development = json!({"claim": "x-casemate-trust-root", "equals": "development"});
    let compliant = json!({"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"});
    let snp = json!({"claim": "x-ms-attestation-type", "equals": "sevsnpvm"});
    let cases = [
        ("allOf", json!([compliant, development]), true),
        ("anyOf", json!([development]), true),
        (
            "allOf",
            json!([{"anyOf": [{"allOf": [snp, development]}, {"allOf": [compliant, development]}]}]),
            true,
        ),
        ("anyOf", json!([compliant, development]), false),
        ("allOf", json!([{"anyOf": [development, compliant]}, snp]), false),
        ("allOf", json!([compliant]), false),
    ];
    for (kind, conditions, mentioned) in cases {
        let decision = policy(&under_issuer(kind, conditions.clone())).evaluate(ISSUER, &claims());
        let decision = decision.expect("released");
        assert_eq!(
            decision.mentions("x-casemate-trust-root", &json!("development")),
            mentioned,
            "{kind} {conditions}"
        );
    }
}

#[test]
fn a_second_authority_entry_that_does_without_the_root_takes_the_mention_away() {
    let document = json!({"version": "1.0.0", "anyOf": [
        {"authority": ISSUER, "allOf": [{"claim": "x-casemate-trust-root", "equals": "development"}]},
        {"authority": ISSUER, "allOf": [{"claim": "x-ms-attestation-type", "equals": "sevsnpvm"}]},
    ]});
    let decision = policy(&document).evaluate(ISSUER, &claims()).expect("released");
    assert!(decision.required().is_empty());
}

#[test]
fn the_spellings_of_the_published_grammar_are_read() {
    for version in ["1.0.0", "1.0", "0.2"] {
        let document = json!({"version": version, "anyof": [
            {"authority": ISSUER, "allof": [{"anyof": [{"claim": "x-ms-attestation-type", "equals": "sevsnpvm"}]}]},
        ]});
        policy(&document).evaluate(ISSUER, &claims()).expect(version);
    }
}

#[test]
fn a_document_that_is_no_policy_is_refused_by_name() {
    unreadable(
        "",
        expect!["the release policy cannot be read: EOF while parsing a value at line 1 column 0"],
    );
    unreadable(
        "{}",
        expect!["the release policy cannot be read: missing field `version` at line 1 column 2"],
    );
    unreadable(
        r#"{"version":"2.0","anyOf":[]}"#,
        expect![[r#"release policy version "2.0" is not known, expected "1.0.0""#]],
    );
    unreadable(r#"{"version":"1.0.0","anyOf":[]}"#, expect!["anyOf has no elements, expected at least one"]);
    unreadable(
        r#"{"version":"1.0.0","anyOf":[],"allOf":[]}"#,
        expect![
            "the release policy cannot be read: unknown field `allOf`, expected one of `version`, `anyOf`, `anyof` at line 1 column 37"
        ],
    );
}

fn unreadable_condition(condition: &str, expected: Expect) {
    let document = format!(
        r#"{{"version":"1.0.0","anyOf":[{{"authority":"https://attest.example","allOf":[{condition}]}}]}}"#
    );
    unreadable(&document, expected);
}

#[test]
fn an_authority_must_be_a_plain_https_url() {
    for text in
        ["", "attest.example", "http://a", "https://a?q", "https://a#f", "https://u:p@a", "mailto:a@b"]
    {
        let document = json!({"version": "1.0.0", "anyOf": [
            {"authority": text, "allOf": [{"claim": "a", "equals": 1}]}]});
        let error = ReleasePolicy::parse(document.to_string().as_bytes()).expect_err(text);
        assert!(matches!(error, ReleasePolicyError::Authority { .. }), "{text}: {error}");
    }
}

#[test]
fn a_reserved_operator_is_refused_by_name() {
    for operator in ["notEquals", "less", "lessOrEquals", "greater", "greaterOrEquals", "exists"] {
        let condition = format!(r#"{{"claim":"a","{operator}":1}}"#);
        let document = format!(
            r#"{{"version":"1.0.0","anyOf":[{{"authority":"https://attest.example","allOf":[{condition}]}}]}}"#
        );
        let error = ReleasePolicy::parse(document.as_bytes()).expect_err(operator).to_string();
        assert!(error.contains(operator), "{error}");
    }
    unreadable_condition(
        r#"{"claim":"a","equals":1,"exists":true}"#,
        expect!["anyOf[0].allOf[0]: operator `exists` is reserved and decides nothing, expected `equals`"],
    );
}

#[test]
fn a_condition_of_another_shape_is_refused() {
    unreadable_condition("", expect!["anyOf[0].allOf has no elements, expected at least one"]);
    for condition in [
        "{}",
        r#"{"claim":"a"}"#,
        r#"{"equals":1}"#,
        r#"{"claim":"a","equals":1,"anyOf":[]}"#,
        r#"{"anyOf":[],"allOf":[]}"#,
    ] {
        unreadable_condition(
            condition,
            expect![
                "anyOf[0].allOf[0]: expected either `claim` with `equals`, or one of `anyOf` and `allOf`"
            ],
        );
    }
    unreadable_condition(
        r#"{"claim":"a","equals":null}"#,
        expect!["anyOf[0].allOf[0]: `equals` takes a string, a number, true or false"],
    );
    unreadable_condition(
        r#"{"claim":"a..b","equals":1}"#,
        expect![[r#"anyOf[0].allOf[0]: claim "a..b" is not a path of names with dots between them"#]],
    );
    unreadable_condition(
        r#"{"claim":"a","equals":1,"equals":2}"#,
        expect!["the release policy cannot be read: duplicate field `equals` at line 1 column 107"],
    );
    unreadable_condition(
        r#"{"allOf":[]}"#,
        expect!["anyOf[0].allOf[0].allOf has no elements, expected at least one"],
    );
}

#[test]
fn a_policy_that_is_too_deep_too_long_or_too_wide_is_refused() {
    let nested = |depth: usize| {
        let mut condition = json!({"claim": "a", "equals": 1});
        for _ in 1..depth {
            condition = json!({"allOf": [condition]});
        }
        ReleasePolicy::parse(under_issuer("allOf", json!([condition])).to_string().as_bytes())
    };
    nested(MAX_DEPTH).expect("as deep as allowed");
    assert!(matches!(nested(MAX_DEPTH + 1), Err(ReleasePolicyError::TooDeep(_))));
    assert!(matches!(nested(500), Err(ReleasePolicyError::Json(_))));
    let long = vec![b' '; MAX_POLICY_BYTES + 1];
    assert!(matches!(ReleasePolicy::parse(&long), Err(ReleasePolicyError::TooLong(_))));
    let many = vec![json!({"claim": "a", "equals": 1}); MAX_CONDITIONS + 1];
    let many = under_issuer("allOf", Value::Array(many)).to_string();
    assert!(matches!(ReleasePolicy::parse(many.as_bytes()), Err(ReleasePolicyError::TooMany)));
}

/// Conditions over three claims with two values each, so that random claims often satisfy them.
fn condition() -> impl Strategy<Value = Value> {
    let leaf = (0..3u8, any::<bool>())
        .prop_map(|(name, value)| json!({"claim": format!("c{name}"), "equals": value}));
    leaf.prop_recursive(4, 24, 3, |inner| {
        (any::<bool>(), prop::collection::vec(inner, 1..4))
            .prop_map(|(any, list)| if any { json!({"anyOf": list}) } else { json!({"allOf": list}) })
    })
}

/// The grammar's meaning in the plainest words, to compare with.
fn holds(condition: &Value, claims: &Value) -> bool {
    if let Some(list) = condition["anyOf"].as_array() {
        return list.iter().any(|inner| holds(inner, claims));
    }
    if let Some(list) = condition["allOf"].as_array() {
        return list.iter().all(|inner| holds(inner, claims));
    }
    claims.get(condition["claim"].as_str().unwrap()) == Some(&condition["equals"])
}

proptest! {
    #[test]
    fn parsing_never_panics(document: Vec<u8>) {
        let _ = ReleasePolicy::parse(&document);
    }

    #[test]
    fn parsing_json_never_panics(text in r#"(\{|\}|\[|\]|"anyOf"|"allOf"|"claim"|"equals"|"authority"|:|,|1|"https://a"){0,40}"#) {
        let _ = ReleasePolicy::parse(text.as_bytes());
    }

    #[test]
    fn the_decision_is_the_grammars_meaning(condition in condition(), values: [Option<bool>; 3]) {
        let claims: serde_json::Map<String, Value> = values.iter().enumerate()
            .filter_map(|(name, value)| value.map(|value| (format!("c{name}"), json!(value)))).collect();
        let claims = Value::Object(claims);
        let decision = policy(&under_issuer("allOf", json!([condition]))).evaluate(ISSUER, &claims);
        prop_assert_eq!(decision.is_ok(), holds(&condition, &claims));
        if let Ok(decision) = decision {
            // Without a claim that the decision names, the same policy refuses.
            for required in decision.required() {
                let mut poorer = claims.clone();
                poorer.as_object_mut().unwrap().remove(required.claim.as_str());
                prop_assert!(!holds(&condition, &poorer));
            }
        }
    }
}
