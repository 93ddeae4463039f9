//! What parses, what does not and why; what is permitted, denied, issued, and in which words.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn refused(text: &str, expected: Expect) {
    expected.assert_eq(&Policy::parse(text).expect_err("must not parse").to_string());
}

fn claims() -> Vec<Claim> {
    let custom = Claim { issuer: Issuer::CustomClaim, ..Claim::of_service("os", "linux") };
    let read_only = Claim { read_only: true, ..Claim::of_service("pcrs", "secret") };
    vec![
        Claim::of_service("debug", false),
        Claim::of_service("svn", 7),
        Claim::of_service("os", "linux"),
        Claim::of_service("set", 1),
        Claim::of_service("set", 2),
        Claim::of_service("superset", 2),
        Claim::of_service("superset", 1),
        Claim::of_service("superset", "x"),
        Claim::of_service("root", "development"),
        custom,
        read_only,
    ]
}

/// The decision in words: issued claims as `type=value`, or the denial, or the error.
fn decision(text: &str) -> String {
    match parsed(text).evaluate(claims()) {
        Ok(Decision::Permit(permit)) => {
            let claims = permit.issued().iter().chain(permit.properties());
            let claims: Vec<String> =
                claims.map(|claim| format!("{}={}", claim.claim_type, claim.value)).collect();
            format!("permit {}", claims.join(" "))
        }
        Ok(Decision::Deny(deny)) => format!("deny {deny}"),
        Err(error) => format!("error {error}"),
    }
}

fn authorizes(rules: &str, expected: Expect) {
    expected.assert_eq(&decision(&format!("version=1.2;\nauthorizationrules {{\n{rules}\n}};")));
}

fn issues(rules: &str, expected: Expect) {
    expected.assert_eq(&decision(&format!(
        "version=1.2;\nauthorizationrules {{ => permit(); }};\nissuancerules {{\n{rules}\n}};"
    )));
}

#[test]
fn permits_need_a_rule() {
    authorizes("=> permit();", expect!["permit "]);
    authorizes(
        "",
        expect![
            "deny authorizationrules: expected a rule with permit(), found missing (policy line 1: a claim set is denied unless a rule of authorizationrules permits it)"
        ],
    );
    expect!["deny authorizationrules: expected a rule with permit(), found missing (policy line 1: a claim set is denied unless a rule of authorizationrules permits it)"]
        .assert_eq(&decision("version=1.0; issuancerules { => issue(type=\"a\", value=1); }"));
}

#[test]
fn a_denial_names_claim_expectation_value_rule_and_line() {
    authorizes(
        r#"[type=="root", value=="development"] => deny(); => permit();"#,
        expect![[
            r#"deny root: expected other than "development", found "development" (policy line 3: [type=="root", value=="development"] => deny())"#
        ]],
    );
    authorizes(
        "=> permit();\n![type==\"reference\"] => deny();",
        expect![[
            r#"deny reference: expected present, found missing (policy line 4: ![type=="reference"] => deny())"#
        ]],
    );
    authorizes(
        r#"![type=="svn", value>=9] => deny(); => permit();"#,
        expect![[
            r#"deny svn: expected at least 9, found 7 (policy line 3: ![type=="svn", value>=9] => deny())"#
        ]],
    );
    authorizes(
        r#"[type=="svn", value<9, issuer=="AttestationService"] => deny();"#,
        expect![[
            r#"deny svn: expected at least 9 or issuer other than "AttestationService", found 7 (policy line 3: [type=="svn", value<9, issuer=="AttestationService"] => deny())"#
        ]],
    );
    authorizes(
        r#"[type=="root", value=="development"] && c:[type=="set"] && [type=="svn", value!=c.value] => deny();"#,
        expect![[
            r#"deny svn: expected 1, found 7 (policy line 3: [type=="root", value=="development"] && c:[type=="set"] && [type=="svn", value!=c.value] => deny())"#
        ]],
    );
    authorizes(
        "=> deny();",
        expect![
            "deny any: expected another policy, found denied without a condition (policy line 3: => deny())"
        ],
    );
}

#[test]
fn a_denial_tells_only_what_is_wrong_with_the_claim_that_is_there() {
    authorizes(
        r#"![type=="svn", value==8, issuer=="AttestationService"] => deny();"#,
        expect![[
            r#"deny svn: expected 8, found 7 (policy line 3: ![type=="svn", value==8, issuer=="AttestationService"] => deny())"#
        ]],
    );
    authorizes(
        r#"![type=="svn", value==7, issuer=="CustomClaim"] => deny();"#,
        expect![[
            r#"deny svn: expected issuer "CustomClaim", found 7 (policy line 3: ![type=="svn", value==7, issuer=="CustomClaim"] => deny())"#
        ]],
    );
    authorizes(
        r#"![type=="nothing", value==7, issuer=="CustomClaim"] => deny();"#,
        expect![[
            r#"deny nothing: expected 7 and issuer "CustomClaim", found missing (policy line 3: ![type=="nothing", value==7, issuer=="CustomClaim"] => deny())"#
        ]],
    );
}

#[test]
fn a_missing_permit_names_the_condition_that_failed() {
    authorizes(
        r#"[type=="debug", value==false] && [type=="svn", value>7] => permit();"#,
        expect![[
            r#"deny svn: expected more than 7, found 7 (policy line 3: [type=="debug", value==false] && [type=="svn", value>7] => permit())"#
        ]],
    );
    authorizes(
        r#"c:[type=="os", issuer=="CustomClaim"] && [type=="root", value==c.value] => permit();"#,
        expect![[
            r#"deny root: expected "linux", found "development" (policy line 3: c:[type=="os", issuer=="CustomClaim"] && [type=="root", value==c.value] => permit())"#
        ]],
    );
    authorizes(
        r#"![type=="root", value=="development"] => permit();"#,
        expect![[
            r#"deny root: expected other than "development", found "development" (policy line 3: ![type=="root", value=="development"] => permit())"#
        ]],
    );
}

#[test]
fn a_later_deny_beats_an_earlier_permit() {
    authorizes(
        "=> permit();\n[type==\"debug\"] => deny();",
        expect![[
            r#"deny debug: expected not present, found false (policy line 4: [type=="debug"] => deny())"#
        ]],
    );
}

#[test]
fn conditions_compare_by_type() {
    let cases = [
        (r#"[type=="svn", value==7]"#, true),
        (r#"[type=="svn", value="7"]"#, false),
        (r#"[type=="svn", value!="7"]"#, true),
        (r#"[type=="svn", value!=7]"#, false),
        (r#"[type=="svn", value<=7]"#, true),
        (r#"[type=="svn", value>=7]"#, true),
        (r#"[type=="svn", value<7]"#, false),
        (r#"[type=="svn", value>-1]"#, true),
        (r#"[type=="debug", value=false]"#, true),
        (r#"[type=="debug", value=="false"]"#, false),
        (r#"[type=="os", value>1]"#, false),
        (r#"[type=="os", value=="Linux"]"#, false),
        (r#"[type=="OS"]"#, false),
        (r#"[type!="svn", value==7]"#, false),
        (r#"[issuer=="CustomClaim", value=="linux"]"#, true),
        (r#"[issuer=="AttestationPolicy"]"#, false),
        (r#"[type=="svn", valueType=="Integer"]"#, true),
        (r#"[type=="svn", valueType!="Integer"]"#, false),
        (r#"![type=="svn", value==8]"#, true),
        (r#"![type=="svn"]"#, false),
        (r#"[type=="svn"] && ![type=="nothing"]"#, true),
        (r#"a:[type=="os"] && [type=="os", issuer!=a.issuer, value==a.value]"#, true),
        (r#"a:[type=="os"] && [type=="os", issuer!=a.issuer, value!=a.value]"#, false),
        (r#"a:[type=="set"] && [type=="superset", value==a.value, value>1]"#, true),
        (r#"[type=="debug", value==NegateBool(true)]"#, true),
    ];
    for (condition, holds) in cases {
        let decision = decision(&format!("version=1.2; authorizationrules {{ {condition} => permit(); }}"));
        assert_eq!(decision.starts_with("permit"), holds, "{condition}: {decision}");
    }
}

#[test]
fn claims_are_added_issued_and_seen_by_later_rules() {
    issues(
        r#"
        c:[type=="svn"] => issue(type="guest-svn", value=c.value);
        c:[type=="guest-svn", issuer=="AttestationPolicy"] => issue(type="again", value=c.value);
        => add(type="hidden", value=true);
        c:[type=="hidden"] => issue(type="shown", value=NegateBool(c.value));
        c:[type=="root"] => issue(claim=c);
        c:[type=="os", issuer=="CustomClaim"] => issue(value=AppendString(c.value, " x"), type=AppendString("o", "s"));
        ![type=="absent"] => issue(type="absent", value="yes");
        ![type=="absent"] => issue(type="absent", value="twice");
        "#,
        expect![[r#"permit guest-svn=7 again=7 shown=false root="development" os="linux x" absent="yes""#]],
    );
}

#[test]
fn claims_added_while_authorizing_are_seen_while_issuing() {
    expect!["permit b=1"].assert_eq(&decision(
        r#"version=1.0; authorizationrules { => add(type="a", value=1); => permit(); }
        issuancerules { c:[type=="a", issuer=="AttestationPolicy"] => issue(type="b", value=c.value); }"#,
    ));
}

#[test]
fn an_action_runs_once_for_each_combination_of_single_values() {
    issues(r#"c:[type=="set"] => issue(type="each", value=c.value);"#, expect!["permit each=1 each=2"]);
    issues(r#"[type=="set"] => issue(type="once", value=true);"#, expect!["permit once=true"]);
    issues(
        r#"a:[type=="set"] && b:[type=="set", value!=a.value] => issue(type="pair", value=b.value);"#,
        expect!["permit pair=2 pair=1"],
    );
}

#[test]
fn sets_are_taken_whole() {
    issues(
        r#"
        a:[type=="set"] && b:[type=="superset"] => issue(type="subset", value=IsSubsetOf(a.value, b.value));
        a:[type=="set"] && b:[type=="superset"] => issue(type="superset", value=IsSubsetOf(b.value, a.value));
        a:[type=="set"] => issue(type="only", value=ContainsOnlyValue(a.value, 1));
        a:[type=="set", value==1] => issue(type="only", value=ContainsOnlyValue(a.value, 1));
        "#,
        expect!["permit subset=true superset=false only=false only=true"],
    );
}

#[test]
fn properties_are_kept_apart_from_claims() {
    expect!["permit report_validity_in_minutes=10"].assert_eq(
        &decision(
            r#"version=1.1; configurationrules { => issueproperty(type="required_pcr_mask", value=15); };
        authorizationrules { [type=="required_pcr_mask", value==15] => permit(); };
        issuancerules { => issueproperty(type="report_validity_in_minutes", value=10); };"#,
        )
        .replace("required_pcr_mask=15 ", ""),
    );
}

#[test]
fn a_read_only_claim_is_compared_but_never_issued() {
    authorizes(r#"[type=="pcrs", value=="secret"] => permit();"#, expect!["permit "]);
    issues(
        r#"c:[type=="pcrs"] => issue(claim=c);"#,
        expect![[
            r#"error policy line 4: claim pcrs is read-only and cannot be issued (rule: c:[type=="pcrs"] => issue(claim=c))"#
        ]],
    );
    issues(
        r#"c:[type=="pcrs"] => issue(type="laundered", value=AppendString(c.value, ""));"#,
        expect![[
            r#"error policy line 4: claim laundered is read-only and cannot be issued (rule: c:[type=="pcrs"] => issue(type="laundered", value=AppendString(c.value, "")))"#
        ]],
    );
    issues(
        r#"c:[type=="pcrs"] => issue(type="same", value=ContainsOnlyValue(c.value, "secret"));"#,
        expect!["permit same=true"],
    );
}

#[test]
fn a_function_on_a_value_of_another_type_is_an_error_not_a_permit() {
    authorizes(
        r#"c:[type=="svn"] && [type=="os", value==AppendString(c.value, "")] => permit();"#,
        expect![[
            r#"error policy line 3: AppendString takes two texts, not 7 and "" (rule: c:[type=="svn"] && [type=="os", value==AppendString(c.value, "")] => permit())"#
        ]],
    );
    issues(
        r#"c:[type=="svn"] => issue(type="x", value=NegateBool(c.value));"#,
        expect![[
            r#"error policy line 4: NegateBool takes true or false, not 7 (rule: c:[type=="svn"] => issue(type="x", value=NegateBool(c.value)))"#
        ]],
    );
    issues(
        r#"c:[type=="svn"] => issue(type=c.value, value=1);"#,
        expect![
            "error policy line 4: a claim's type is a text, not 7 (rule: c:[type==\"svn\"] => issue(type=c.value, value=1))"
        ],
    );
}

#[test]
fn a_policy_that_multiplies_without_end_is_stopped() {
    let doubling = r#"a:[type=="set"] => add(type="set", value=a.value);"#.repeat(40);
    let error = decision(&format!("version=1.0; authorizationrules {{ {doubling} => permit(); }}"));
    assert!(error.contains("more than 1000000 steps"), "{error}");
    let growing = r#"a:[type=="os", issuer=="AttestationService"] => add(type="t", value=a.value);
        a:[type=="t"] => add(type="t", value=AppendString(AppendString(a.value, a.value), a.value));"#;
    let growing = growing.repeat(60);
    let error = decision(&format!("version=1.2; authorizationrules {{ {growing} => permit(); }}"));
    assert!(error.contains("more than 1000000 steps"), "{error}");
}

#[test]
fn published_examples_parse() {
    parsed(
        r#"version= 1.0;
        authorizationrules
        {
            [ type=="x-ms-sgx-is-debuggable", value==false ]
            && [ type=="x-ms-sgx-product-id", value==1 ]
            && [ type=="x-ms-sgx-svn", value>= 0 ] // a comment
            => permit();
        };
        issuancerules { c:[type=="x-ms-sgx-mrsigner"] => issue(type="mrsigner", value=c.value); };"#,
    );
    parsed(
        r#"version=1.1; configurationrules { => issueproperty(type = "x-ms-sgx-tcbidentifier", value = "azuredefault"); };
        authorizationrules { => permit(); }; issuancerules {};"#,
    );
    parsed(
        r#"version=1.0; authorizationrules {}; issuancerules {
        F1:[type=="OSName" , issuer=="CustomClaim"] &&
        C2:[type=="OSName" , issuer=="AttestationService", value== F1.value ] => issue(claim = C2); };"#,
    );
}

#[test]
fn errors_tell_line_column_expected_and_found() {
    refused("", expect!["line 1, column 1: expected `version`, found the end of the policy"]);
    refused("permit", expect!["line 1, column 1: expected `version`, found `permit`"]);
    refused("version=1.3;", expect!["line 1, column 9: expected version 1.0, 1.1 or 1.2, found `1`"]);
    refused("version=1.0", expect!["line 1, column 12: expected `;`, found the end of the policy"]);
    refused(
        "version=1.0;\nrules {}",
        expect![
            "line 2, column 1: expected `configurationrules`, `authorizationrules`, `issuancerules` or the end of the policy, found `rules`"
        ],
    );
    refused(
        "version=1.0;\nconfigurationrules {}",
        expect![
            "line 2, column 1: expected no `configurationrules` before version 1.1, found `configurationrules`"
        ],
    );
    refused(
        "version=1.0; issuancerules {} issuancerules {}",
        expect!["line 1, column 31: expected each section once, found `issuancerules`"],
    );
}

fn refused_rule(rule: &str, expected: Expect) {
    refused(&format!("version=1.2;\nauthorizationrules {{\n{rule} }};"), expected);
}

#[test]
fn a_rule_with_a_mistake_is_refused_at_the_mistake() {
    refused_rule("=> permit() permit();", expect!["line 3, column 19: expected `:`, found `(`"]);
    refused_rule("permit();", expect!["line 3, column 7: expected `:`, found `(`"]);
    refused_rule(
        "[] => permit();",
        expect!["line 3, column 2: expected `type`, `value`, `valueType` or `issuer`, found `]`"],
    );
    refused_rule(
        "[type] => permit();",
        expect!["line 3, column 6: expected `==`, `!=`, `<`, `<=`, `>` or `>=`, found `]`"],
    );
    refused_rule(
        r#"[type=="a" value==1] => permit();"#,
        expect!["line 3, column 12: expected `,` or `]`, found `value`"],
    );
    refused_rule(
        r#"[typo=="a"] => permit();"#,
        expect!["line 3, column 2: expected `type`, `value`, `valueType` or `issuer`, found `typo`"],
    );
    refused_rule(r#"[type==1] => permit();"#, expect!["line 3, column 8: expected a text, found `1`"]);
    refused_rule(
        r#"[type<"a"] => permit();"#,
        expect!["line 3, column 6: expected `==` or `!=`, the only operators for texts, found `<`"],
    );
    refused_rule(
        r#"[value<"a"] => permit();"#,
        expect![[r#"line 3, column 8: expected an integer, found `"a"`"#]],
    );
    refused_rule(
        r#"[issuer=="Someone"] => permit();"#,
        expect![[
            r#"line 3, column 10: expected "AttestationService", "AttestationPolicy" or "CustomClaim", found `"Someone"`"#
        ]],
    );
    refused_rule(
        r#"[valueType=="Number"] => permit();"#,
        expect![[r#"line 3, column 13: expected "Boolean", "Integer" or "String", found `"Number"`"#]],
    );
    refused_rule(
        r#"[value==maybe] => permit();"#,
        expect![
            "line 3, column 9: expected a value, an identifier with a property, or a function, found `maybe`"
        ],
    );
    refused_rule(
        r#"[value==c.value] => permit();"#,
        expect!["line 3, column 9: expected the identifier of an earlier condition of this rule, found `c`"],
    );
    refused_rule(
        r#"c:[value==c.value] => permit();"#,
        expect!["line 3, column 11: expected the identifier of an earlier condition of this rule, found `c`"],
    );
    refused_rule(
        r#"c:[value==1] && c:[value==2] => permit();"#,
        expect!["line 3, column 17: expected an identifier that this rule does not have yet, found `c`"],
    );
    refused_rule(r#"!c:[value==1] => permit();"#, expect!["line 3, column 2: expected `[`, found `c`"]);
}

#[test]
fn an_action_with_a_mistake_is_refused_at_the_mistake() {
    refused_rule(
        r#"[value==1] => issueproperty(type="a", value=1);"#,
        expect!["line 3, column 15: expected `permit`, `deny`, `add` or `issue`, found `issueproperty`"],
    );
    refused_rule(r#"[value==1] => permit(1);"#, expect!["line 3, column 22: expected `)`, found `1`"]);
    refused_rule(
        r#"=> add(type="a", type="b");"#,
        expect!["line 3, column 18: expected `value`, found `type`"],
    );
    refused_rule(r#"=> add(type="a");"#, expect!["line 3, column 16: expected `,`, found `)`"]);
    refused_rule(r#"=> add(type=1, value=1);"#, expect!["line 3, column 13: expected a text, found `1`"]);
}

#[test]
fn characters_that_are_no_token_are_refused_where_they_stand() {
    refused_rule(
        r#"[value==1] || [value==2] => permit();"#,
        expect![
            "line 3, column 12: expected a word, a text, an integer or a symbol of the policy language, found '|'"
        ],
    );
    refused_rule(
        r#"[value=="\n"] => permit();"#,
        expect![[
            r#"line 3, column 9: expected text that ends with a quotation mark and has only the escapes \" and \\, found '"'"#
        ]],
    );
    refused_rule(
        r#"[value==99999999999999999999] => permit();"#,
        expect!["line 3, column 9: expected an integer of 64 bits, found '9'"],
    );
    refused_rule(
        r#"[value==12ab] => permit();"#,
        expect!["line 3, column 9: expected an integer of 64 bits, found '1'"],
    );
    refused_rule(
        r#"[value=="é" , value=="ü] => permit();"#,
        expect![[
            r#"line 3, column 22: expected text that ends with a quotation mark and has only the escapes \" and \\, found '"'"#
        ]],
    );
}

#[test]
fn functions_that_do_not_exist_and_wrong_arguments_are_refused_where_they_stand() {
    refused_rule(
        r#"[value==ToInt("1")] => permit();"#,
        expect![
            "line 3, column 9: expected one of the functions `JmesPath`, `JsonToClaimValue`, `IsSubsetOf`, `AppendString`, `NegateBool`, `ContainsOnlyValue`, found `ToInt`"
        ],
    );
    refused_rule(
        r#"[value==NegateBool(true, false)] => permit();"#,
        expect!["line 3, column 24: expected `)`, found `,`"],
    );
}

#[test]
fn what_a_version_does_not_have_is_refused() {
    refused(
        r#"version=1.1; authorizationrules { ![type=="a"] => permit(); }"#,
        expect!["line 1, column 35: expected no `!` before version 1.2, found `!`"],
    );
    refused(
        r#"version=1.1; authorizationrules { [value==NegateBool(true)] => permit(); }"#,
        expect!["line 1, column 43: expected no function before version 1.2, found `NegateBool`"],
    );
}

#[test]
fn a_property_that_nobody_reads_is_refused() {
    refused(
        r#"version=1.1; configurationrules { => issueproperty(type="mystery", value=1); }"#,
        expect![[
            r#"line 1, column 57: expected one of the properties x-ms-sgx-tcbidentifier, require_valid_aik_cert, required_pcr_mask, found `"mystery"`"#
        ]],
    );
    refused(
        r#"version=1.1; issuancerules { => issueproperty(type="omit_x5c", value=1); }"#,
        expect!["line 1, column 70: expected true or false for omit_x5c, found `1`"],
    );
    refused(
        r#"version=1.1; configurationrules { => permit(); }"#,
        expect!["line 1, column 38: expected `issueproperty`, found `permit`"],
    );
}

#[test]
fn a_policy_that_is_too_long_too_wide_or_too_deep_is_refused() {
    refused(
        &" ".repeat(MAX_POLICY_BYTES + 1),
        expect!["line 1, column 1: expected at most 131072 bytes of policy, found 131073 bytes"],
    );
    let rules = "=> permit();".repeat(MAX_RULES + 1);
    let error =
        Policy::parse(&format!("version=1.0; authorizationrules {{ {rules} }}")).expect_err("too many");
    assert_eq!(error.expected, "at most 1024 rules");
    let conditions = vec!["[value==1]"; MAX_CONDITIONS + 1].join("&&");
    let error = Policy::parse(&format!("version=1.0; authorizationrules {{ {conditions} => permit(); }}"));
    assert_eq!(error.expect_err("too many").expected, "at most 32 conditions");
    let calls = format!("{}true{}", "NegateBool(".repeat(100_000 / 11), ")".repeat(20));
    let error =
        Policy::parse(&format!("version=1.2; authorizationrules {{ [value=={calls}] => permit(); }}"));
    assert_eq!(error.expect_err("too deep").expected, "at most 16 nested calls");
}

#[test]
fn the_policy_hash_is_over_the_encoded_text() {
    // The policy text is "a"; the value was computed with Python's hashlib and base64.
    expect!["8NX4mu6PSkhiPRwDQxEypr9eDikZbovdJHvQcNTjFLA"].assert_eq(&policy_hash("a"));
}

/// Words of the language in random order, which get much deeper into the parser than random characters.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "version=1.2;",
        "authorizationrules",
        "issuancerules",
        "configurationrules",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        ";",
        ",",
        ":",
        ".",
        "=",
        "==",
        "=>",
        "&&",
        "!",
        "<",
        "type",
        "value",
        "issuer",
        "claim",
        "permit()",
        "deny()",
        "add(",
        "issue(",
        "\"a\"",
        "1",
        "true",
        "c",
        "c.value",
        "NegateBool(",
        "IsSubsetOf(",
        "c:[type==\"a\"]",
        "=> permit();",
        "// x\n",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

/// Rules over few types and values, so that they often match.
fn rule() -> impl Strategy<Value = String> {
    let condition = (any::<bool>(), 0..3u8, prop::sample::select(vec!["==", "!=", "<", ">="]), 0..3u8)
        .prop_map(|(negated, name, operator, value)| {
            format!("{}[type==\"t{name}\", value{operator}{value}]", if negated { "!" } else { "" })
        });
    let action = prop::sample::select(vec![
        "permit()",
        "deny()",
        "add(type=\"t1\", value=1)",
        "add(type=\"t2\", value=2)",
    ]);
    (prop::collection::vec(condition, 0..3), action)
        .prop_map(|(conditions, action)| format!("{} => {action};", conditions.join(" && ")))
}

proptest! {
    #[test]
    fn parsing_never_panics(text: String) {
        let _ = Policy::parse(&text);
    }

    #[test]
    fn parsing_words_never_panics(text in words()) {
        let _ = Policy::parse(&text);
        let _ = Policy::parse(&format!("version=1.2; authorizationrules {{ {text}"));
    }

    #[test]
    fn evaluation_ends_and_a_permit_means_that_no_deny_rule_held(
        rules in prop::collection::vec(rule(), 0..6), values in prop::collection::vec((0..3u8, 0..3i64), 0..6),
    ) {
        let incoming: Vec<Claim> =
            values.iter().map(|(name, value)| Claim::of_service(format!("t{name}"), *value)).collect();
        let policy = |rules: &[String]| parsed(&format!("version=1.2; authorizationrules {{ {} }}", rules.concat()));
        let permitted = |rules: &[String]| {
            matches!(policy(rules).evaluate(incoming.clone()), Ok(Decision::Permit(_)))
        };
        let whole = permitted(&rules);
        for end in 0..rules.len() {
            // Cutting a policy off before a deny rule that fired is the only way to turn its answer into yes.
            if rules[end].contains("deny()") && whole {
                let mut alone: Vec<String> = rules[..end].iter().filter(|rule| rule.contains("add(")).cloned().collect();
                alone.push("=> permit();".to_owned());
                alone.push(rules[end].clone());
                prop_assert!(permitted(&alone), "{}", rules[end]);
            }
        }
        prop_assert!(!whole || rules.iter().any(|rule| rule.contains("permit()")));
    }
}
