//! Draft policies: trying a policy on real evidence without any effect.
//!
//! Source: Azure Attestation, "draftPolicyForAttestation". The result is unsigned, so that nobody can take it for a token.

use policy::language::PolicyError;
use public_api::attestation::Claims;
use public_api::encoding::to_base64url;
use serde_json::Value;

use super::fields::FieldError;
use super::platform_policy::{Circumstances, incoming};
use super::provider::document::{DocumentError, PolicyDocument};
use super::provider::in_force::ProviderPolicy;

/// Why a draft gives no result.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// Not a JWS with a policy in it.
    #[error("{}", .0.problem)]
    Form(#[from] FieldError),
    /// Not a policy.
    #[error("the draft policy cannot be read: {0}")]
    Policy(#[from] PolicyError),
    /// It denies, or its signature does not hold.
    #[error("{0}")]
    Denied(Box<public_api::Denial>),
}

impl From<DocumentError> for DraftError {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::Form(error) => Self::Form(error),
            DocumentError::Refused(denial) => Self::Denied(denial),
        }
    }
}

/// Evaluates a draft and adds what it issues.
pub fn apply(draft: &str, claims: &mut Claims, circumstances: Circumstances) -> Result<(), DraftError> {
    let document = PolicyDocument::read(draft)?;
    let text = document.policy_text()?.ok_or_else(|| FieldError::new("policy", "the JWS has no payload"))?;
    let policy = ProviderPolicy::parse(0, String::new(), &text, None)?;
    policy.apply(incoming(claims, circumstances), claims).map(drop).map_err(DraftError::Denied)
}

/// Claims as an unsigned JWS.
pub fn unsigned(claims: &Claims) -> String {
    let payload = Value::Object(claims.clone()).to_string();
    format!("{}.{}.", to_base64url(br#"{"alg":"none","typ":"JWT"}"#), to_base64url(payload.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::provider::document::unsigned_jws as policy_jws;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn tried(policy: &str, expected: Expect) {
        let mut claims = Claims::new();
        claims.insert("x-ms-sevsnpvm-vmpl".to_owned(), json!(0));
        let circumstances =
            Circumstances { development_roots_allowed: false, minimum_tcb: Default::default() };
        let result = match apply(policy, &mut claims, circumstances) {
            Ok(()) => Value::Object(claims).to_string(),
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&result);
    }

    #[test]
    fn a_draft_issues_claims_and_sets() {
        tried(
            &policy_jws(
                r#"version=1.0; authorizationrules { => permit(); }; issuancerules {
                => issue(type="a", value=1); => issue(type="a", value="x"); => issue(type="a", value=true);
                c:[type=="x-ms-sevsnpvm-vmpl"] => issue(type="level", value=c.value); };"#,
            ),
            expect![[
                r#"{"a":[1,"x",true],"level":0,"x-ms-policy-hash":"cJhtS-dY7ObBB2lF-gt087kQlIOXCnw6ZXdFHz3YzOQ","x-ms-sevsnpvm-vmpl":0}"#
            ]],
        );
    }

    #[test]
    fn a_draft_cannot_speak_in_the_services_name() {
        for claim in ["x-ms-compliance-status", "x-casemate-trust-root", "iss", "exp"] {
            let policy = format!(
                r#"version=1.0; authorizationrules {{ => permit(); }}; issuancerules {{ => issue(type="{claim}", value="x"); }};"#
            );
            let error = apply(
                &policy_jws(&policy),
                &mut Claims::new(),
                Circumstances { development_roots_allowed: false, minimum_tcb: Default::default() },
            );
            let Err(DraftError::Denied(denial)) = error else { panic!("{claim} is accepted") };
            assert_eq!((denial.code.as_str(), denial.claim.as_str()), ("PolicyIssuesReservedClaim", claim));
        }
    }

    #[test]
    fn what_is_no_draft_is_refused() {
        tried("", expect!["error: expected a compact JWS: three parts with dots between them"]);
        tried("a.b.c.d", expect!["error: expected a compact JWS: three parts with dots between them"]);
        tried("e30.e30.", expect!["error: the JWS header: missing field `alg` at line 1 column 2"]);
        tried(
            &policy_jws("version=9;"),
            expect!["error: the draft policy cannot be read: line 1, column 10: expected `.`, found `;`"],
        );
        tried(
            &policy_jws("version=1.0; authorizationrules { => deny(); };"),
            expect![
                "error: PolicyDenied: any: expected another policy, found denied without a condition (rule: line 1 of the attestation policy: => deny()); see the rule of the attestation policy"
            ],
        );
    }
}
