//! Attestation policies: parsing, and evaluation over a fixed set of claims.

use policy::language::{Claim, ClaimValue, Issuer, MAX_POLICY_BYTES, Policy};

use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "policy",
    run,
    seeds,
    words: &[
        b"version=1.0;",
        b"version=1.1;",
        b"version=1.2;",
        b"authorizationrules",
        b"issuancerules",
        b"configurationrules",
        b"=> permit();",
        b"=> deny();",
        b"=> add(",
        b"=> issue(",
        b"issueproperty(",
        b"type==",
        b"value==",
        b"value!=",
        b"issuer==",
        b"valueType==",
        b"properties",
        b"ContainsOnlyValue(",
        b"IsSubSetOf(",
        b"JsonToClaimValue(",
        b"AppendString(",
        b"NegateBool(",
        b"JmesPath(",
        b"&&",
        b"!",
        b"c1:",
        b".value",
        b"\"AttestationService\"",
    ],
    max_len: 4096,
};

fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Policy::parse(text) {
        Err(error) => {
            assert!(error.line >= 1 && error.column >= 1, "places are counted from 1");
            assert!(error.line <= text.split('\n').count() + 1, "the line is in the text");
            assert!(!error.expected.is_empty(), "an error says what could stand there");
        }
        Ok(policy) => {
            assert!(text.len() <= MAX_POLICY_BYTES);
            let first = policy.evaluate(claims());
            assert_eq!(first, policy.evaluate(claims()), "the same claims, the same decision");
        }
    }
}

fn claims() -> Vec<Claim> {
    let custom = Claim { issuer: Issuer::CustomClaim, ..Claim::of_service("os", "linux") };
    let read_only = Claim { read_only: true, ..Claim::of_service("pcrs", "secret") };
    let json = r#"{"a":{"b":[1,2,{"c":"d"}]},"e":[{"f":true},{"f":false}]}"#;
    vec![
        Claim::of_service("debug", false),
        Claim::of_service("svn", ClaimValue::Integer(7)),
        Claim::of_service("os", "linux"),
        Claim::of_service("set", ClaimValue::Integer(1)),
        Claim::of_service("set", ClaimValue::Integer(2)),
        Claim::of_service("json", json),
        custom,
        read_only,
    ]
}

fn seeds() -> Vec<Vec<u8>> {
    let own = "version=1.2;\nauthorizationrules {\n[type==\"debug\", value==false] && ![type==\"svn\", value<3] \
               => permit();\n};\nissuancerules {\nc:[type==\"os\", issuer==\"AttestationService\"] => issue(claim=c);\n\
               => issue(type=\"x\", value=AppendString(\"a\", \"b\"));\n};";
    let azure = "version= 1.0;\nauthorizationrules\n{\n\t[ type==\"x-ms-sevsnpvm-is-debuggable\", value==true ]=> deny();\n\
                 \t=> permit();\n};\nissuancerules\n{\n\tc:[type==\"svn\"] => add(type=\"y\", value=c.value);\n};\n";
    let shortest = "version=1.0;authorizationrules{=>permit();};issuancerules{};";
    [own, azure, shortest].map(|text| text.as_bytes().to_vec()).to_vec()
}
