//! Denials of claims that the policy made name the claim, its rule, and what it was made of.

use expect_test::{Expect, expect};
use policy::language::{Claim, Decision};

use super::parsed;

fn denied(rules: &str, claims: Vec<Claim>, expected: Expect) {
    let text = format!("version=1.2;\nauthorizationrules {{\n{rules}\n}};");
    let Ok(Decision::Deny(deny)) = parsed(&text).evaluate(claims) else { panic!("must deny: {text}") };
    let mut told = deny.to_string();
    for derivation in &deny.derived_from {
        told += &format!(
            "\n{} <- [{}] by line {}: {}",
            derivation.claim,
            derivation.from.join(", "),
            derivation.line,
            derivation.rule
        );
    }
    expected.assert_eq(&told);
}

fn log(secure_boot: &str) -> Vec<Claim> {
    let log = format!(r#"{{"Events": [{{"Name": "SecureBoot", "Data": "{secure_boot}"}}]}}"#);
    vec![Claim::of_service("events", log), Claim::of_service("svn", 7), Claim::of_service("minimum", 8)]
}

const QUERIED: &str = r#"c:[type=="events"] => add(type="variables", value=JmesPath(c.value, "Events[?Name == 'SecureBoot']"));
c:[type=="variables"] => add(type="secureBoot", value=JsonToClaimValue(JmesPath(c.value, "[0].Data")));"#;

#[test]
fn a_queried_claim_is_told_back_to_the_evidence() {
    denied(
        &format!("{QUERIED}\n[type==\"secureBoot\", value==\"AQ\"] => permit();"),
        log("AA"),
        expect![[r#"
        secureBoot: expected "AQ", found "AA" (made of variables by line 4) (policy line 5: [type=="secureBoot", value=="AQ"] => permit())
        secureBoot <- [variables] by line 4: c:[type=="variables"] => add(type="secureBoot", value=JsonToClaimValue(JmesPath(c.value, "[0].Data")))
        variables <- [events] by line 3: c:[type=="events"] => add(type="variables", value=JmesPath(c.value, "Events[?Name == 'SecureBoot']"))"#]],
    );
    denied(
        &format!("{QUERIED}\n=> permit();\n[type==\"secureBoot\", value!=\"AQ\"] => deny();"),
        log("AA"),
        expect![[r#"
        secureBoot: expected "AQ", found "AA" (made of variables by line 4) (policy line 6: [type=="secureBoot", value!="AQ"] => deny())
        secureBoot <- [variables] by line 4: c:[type=="variables"] => add(type="secureBoot", value=JsonToClaimValue(JmesPath(c.value, "[0].Data")))
        variables <- [events] by line 3: c:[type=="events"] => add(type="variables", value=JmesPath(c.value, "Events[?Name == 'SecureBoot']"))"#]],
    );
}

#[test]
fn a_claim_that_no_rule_made_is_told_with_the_rule_that_would_have() {
    denied(
        &format!("{QUERIED}\n[type==\"secureBoot\"] => permit();"),
        vec![],
        expect![[r#"
        secureBoot: expected present, found missing; line 4 makes it, but variables: expected present, found missing; line 3 makes it, but events: expected present, found missing (policy line 5: [type=="secureBoot"] => permit())
        secureBoot <- [variables] by line 4: c:[type=="variables"] => add(type="secureBoot", value=JsonToClaimValue(JmesPath(c.value, "[0].Data")))
        variables <- [events] by line 3: c:[type=="events"] => add(type="variables", value=JmesPath(c.value, "Events[?Name == 'SecureBoot']"))"#]],
    );
    denied(
        "c:[type==\"events\"] => add(type=\"late\", value=JsonToClaimValue(JmesPath(c.value, \"Late\")));\n[type==\"late\"] => permit();",
        log("AQ"),
        expect![[r#"
            late: expected present, found missing; line 3 made nothing: its value is empty on events (policy line 4: [type=="late"] => permit())
            late <- [events] by line 3: c:[type=="events"] => add(type="late", value=JsonToClaimValue(JmesPath(c.value, "Late")))"#]],
    );
    denied(
        "=> permit();\n![type==\"late\"] => deny();",
        log("AQ"),
        expect![[r#"late: expected present, found missing (policy line 4: ![type=="late"] => deny())"#]],
    );
}

#[test]
fn an_expected_value_tells_the_function_that_computed_it() {
    denied(
        r#"c:[type=="events"] && [type=="svn", value==JsonToClaimValue(JmesPath(c.value, "length(Events)"))] => permit();"#,
        log("AQ"),
        expect![[
            r#"svn: expected 1 (JsonToClaimValue of events), found 7 (policy line 3: c:[type=="events"] && [type=="svn", value==JsonToClaimValue(JmesPath(c.value, "length(Events)"))] => permit())"#
        ]],
    );
    denied(
        r#"m:[type=="minimum"] && [type=="svn", value>=m.value] => permit();"#,
        log("AQ"),
        expect![[
            r#"svn: expected at least 8, found 7 (policy line 3: m:[type=="minimum"] && [type=="svn", value>=m.value] => permit())"#
        ]],
    );
    denied(
        r#"a:[type=="svn"] => add(type="only", value=ContainsOnlyValue(a.value, 8)); [type=="only", value==true] => permit();"#,
        log("AQ"),
        expect![[r#"
            only: expected true, found false (made of svn by line 3) (policy line 3: [type=="only", value==true] => permit())
            only <- [svn] by line 3: a:[type=="svn"] => add(type="only", value=ContainsOnlyValue(a.value, 8))"#]],
    );
}

#[test]
fn a_condition_without_a_type_tells_the_claim_that_matched() {
    denied(
        r#"=> permit(); [value==7] => deny();"#,
        log("AQ"),
        expect!["svn: expected other than 7, found 7 (policy line 3: [value==7] => deny())"],
    );
    denied(
        r#"[value==9] => permit();"#,
        log("AQ"),
        expect![
            "any: expected 9, found no claim that satisfies the condition (policy line 3: [value==9] => permit())"
        ],
    );
}

#[test]
fn rules_that_wait_for_each_other_are_told_once() {
    denied(
        r#"[type=="b"] => add(type="a", value=1); [type=="a"] => add(type="b", value=1); [type=="a"] => permit();"#,
        vec![],
        expect![[r#"
            a: expected present, found missing; line 3 makes it, but b: expected present, found missing; line 3 makes it, but a: expected present, found missing (policy line 3: [type=="a"] => permit())
            a <- [b] by line 3: [type=="b"] => add(type="a", value=1)
            b <- [a] by line 3: [type=="a"] => add(type="b", value=1)"#]],
    );
}

/// Rules on one line, each of which doubles a set: a claim at the end has thousands of ways back to the evidence.
#[test]
fn a_claim_with_very_many_ways_back_is_told_at_once() {
    let doubling = r#"a:[type=="svn"] => add(type="svn", value=a.value); "#.repeat(13);
    let text = format!(
        "version=1.2; authorizationrules {{ {doubling} => permit(); [type==\"svn\", value<8] => deny(); }};"
    );
    let Ok(Decision::Deny(deny)) = parsed(&text).evaluate(log("AQ")) else { panic!("must deny") };
    assert_eq!(
        (deny.claim.as_str(), deny.derived_from.len()),
        ("svn", 0),
        "the evidence's own claim comes first"
    );
    let text = text.replace("value<8]", "value<8, issuer==\"AttestationPolicy\"]");
    let Ok(Decision::Deny(deny)) = parsed(&text).evaluate(log("AQ")) else { panic!("must deny") };
    assert_eq!(deny.derived_from.len(), 1, "{deny:?}");
}

#[test]
fn a_long_value_is_cut_in_a_denial() {
    let long = vec![Claim::of_service("events", "x".repeat(100_000))];
    let text = r#"version=1.2; authorizationrules { [type=="events", value=="y"] => permit(); };"#;
    let Ok(Decision::Deny(deny)) = parsed(text).evaluate(long) else { panic!("must deny") };
    assert!(deny.actual.len() < 500, "{}", deny.actual.len());
}
