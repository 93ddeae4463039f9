//! Configuration and token properties: names, types, ranges, defaults.

use expect_test::{Expect, expect};
use policy::language::{Claim, Configuration, Decision, Policy, TokenProperties};

use super::{decision, parsed};

fn refused(section: &str, property: &str, value: &str, expected: Expect) {
    let text =
        format!("version=1.2;\n{section} {{\n  => issueproperty(type=\"{property}\", value={value});\n}};");
    expected.assert_eq(&Policy::parse(&text).expect_err("must not parse").to_string());
}

#[test]
fn types_and_ranges_are_checked_where_the_value_stands() {
    let configuration = "configurationrules";
    refused(
        configuration,
        "require_valid_aik_cert",
        "1",
        expect!["line 3, column 57: expected true or false for require_valid_aik_cert, found `1`"],
    );
    refused(
        configuration,
        "required_pcr_mask",
        "16777216",
        expect![
            "line 3, column 52: expected an integer from 0 to 16777215 for required_pcr_mask, found `16777216`"
        ],
    );
    refused(
        configuration,
        "required_pcr_mask",
        "-1",
        expect![
            "line 3, column 52: expected an integer from 0 to 16777215 for required_pcr_mask, found `-1`"
        ],
    );
    refused(
        configuration,
        "required_pcr_mask",
        "\"15\"",
        expect![[
            r#"line 3, column 52: expected an integer from 0 to 16777215 for required_pcr_mask, found `"15"`"#
        ]],
    );
}

#[test]
fn texts_have_a_length_and_properties_have_their_section() {
    let configuration = "configurationrules";
    refused(
        configuration,
        "x-ms-sgx-tcbidentifier",
        "\"\"",
        expect![[
            r#"line 3, column 57: expected a text of 1 to 64 characters for x-ms-sgx-tcbidentifier, found `""`"#
        ]],
    );
    refused(
        configuration,
        "x-ms-sgx-tcbidentifier",
        "11",
        expect![
            "line 3, column 57: expected a text of 1 to 64 characters for x-ms-sgx-tcbidentifier, found `11`"
        ],
    );
    refused(
        configuration,
        "omit_x5c",
        "true",
        expect![[
            r#"line 3, column 25: expected one of the properties x-ms-sgx-tcbidentifier, require_valid_aik_cert, required_pcr_mask, found `"omit_x5c"`"#
        ]],
    );
    refused(
        "issuancerules",
        "report_validity_in_minutes",
        "0",
        expect![
            "line 3, column 61: expected an integer from 1 to 525600 for report_validity_in_minutes, found `0`"
        ],
    );
    refused(
        "issuancerules",
        "report_validity_in_minutes",
        "525601",
        expect![
            "line 3, column 61: expected an integer from 1 to 525600 for report_validity_in_minutes, found `525601`"
        ],
    );
    refused(
        "issuancerules",
        "omit_x5c",
        "\"true\"",
        expect![[r#"line 3, column 43: expected true or false for omit_x5c, found `"true"`"#]],
    );
    refused(
        "issuancerules",
        "required_pcr_mask",
        "1",
        expect![[
            r#"line 3, column 25: expected one of the properties report_validity_in_minutes, omit_x5c, found `"required_pcr_mask"`"#
        ]],
    );
    refused(
        "authorizationrules",
        "omit_x5c",
        "true",
        expect!["line 3, column 6: expected `permit`, `deny`, `add` or `issue`, found `issueproperty`"],
    );
}

#[test]
fn a_computed_value_is_checked_when_it_is_there() {
    let text = r#"version=1.2; configurationrules {
        c:[type=="mask"] => issueproperty(type="required_pcr_mask", value=c.value);
    }; authorizationrules { => permit(); };"#;
    let mask = |value: i64| vec![Claim::of_client("mask", value)];
    expect![[r#"error policy line 2: expected an integer from 0 to 16777215 for required_pcr_mask, not -1 (rule: c:[type=="mask"] => issueproperty(type="required_pcr_mask", value=c.value))"#]].assert_eq(&decision(text, mask(-1)));
    let configuration = parsed(text).configuration(&mask(7)).expect("in range");
    assert_eq!(configuration.required_pcr_mask, 7);
    assert_eq!(parsed(text).configuration(&[]), Ok(Configuration::default()));
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let Ok(Decision::Permit(permit)) =
        parsed("version=1.0; authorizationrules { => permit(); }").evaluate(vec![])
    else {
        panic!("permitted without condition");
    };
    let configuration = permit.configuration();
    assert!(configuration.require_valid_aik_cert);
    assert_eq!(configuration.required_pcr_mask, 0x00ff_ffff);
    assert_eq!(configuration.sgx_tcb_identifier, "azuredefault");
    assert_eq!(permit.token_properties(), TokenProperties::default());
}

#[test]
fn the_last_rule_that_sets_a_property_counts() {
    let text = r#"version=1.1;
    configurationrules {
        => issueproperty(type="required_pcr_mask", value=1);
        => issueproperty(type="required_pcr_mask", value=3);
        [type=="absent"] => issueproperty(type="required_pcr_mask", value=7);
        => issueproperty(type="x-ms-sgx-tcbidentifier", value="11");
        [type=="required_pcr_mask", value==3] => issueproperty(type="require_valid_aik_cert", value=false);
    };
    authorizationrules { => permit(); };
    issuancerules {
        => issueproperty(type="omit_x5c", value=true);
        => issueproperty(type="report_validity_in_minutes", value=60);
        => issueproperty(type="report_validity_in_minutes", value=525600);
    };"#;
    let Ok(Decision::Permit(permit)) = parsed(text).evaluate(vec![]) else { panic!("permitted") };
    let expected = Configuration {
        require_valid_aik_cert: false,
        required_pcr_mask: 3,
        sgx_tcb_identifier: "11".to_owned(),
    };
    assert_eq!(*permit.configuration(), expected);
    let expected = TokenProperties { report_validity_in_minutes: Some(525_600), omit_x5c: true };
    assert_eq!(permit.token_properties(), expected);
}
