//! Draft policies: trying a policy on real evidence without any effect, and the unsigned JWS forms of policies.
//!
//! Source: Azure Attestation, "draftPolicyForAttestation" and the policy transport: an unsigned policy is a JWS with the
//! header `{"alg":"none"}` and the member `AttestationPolicy`, base64url of the text.

use policy::language::{Claim, ClaimValue, Decision, Policy, PolicyError, policy_hash};
use public_api::attestation::Claims;
use public_api::encoding::{from_base64_any, to_base64url};
use serde_json::{Value, json};

use super::platform_policy::{Circumstances, denial, incoming, unevaluated};

/// Why a draft gives no result.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// Not a JWS with a policy in it.
    #[error("expected a JWS whose payload has the member AttestationPolicy in base64url")]
    Form,
    /// Not a policy.
    #[error("the draft policy cannot be read: {0}")]
    Policy(#[from] PolicyError),
    /// It issues a claim that only the service may state.
    #[error("the draft policy issues claim `{0}`, which only the service states")]
    ReservedClaim(String),
    /// It denies.
    #[error("{0}")]
    Denied(Box<public_api::Denial>),
}

/// Evaluates a draft and adds what it issues.
pub fn apply(draft: &str, claims: &mut Claims, circumstances: Circumstances) -> Result<(), DraftError> {
    let text = policy_text(draft)?;
    let policy = Policy::parse(&text)?;
    let permit = match policy.evaluate(incoming(claims, circumstances)) {
        Ok(Decision::Permit(permit)) => permit,
        Ok(Decision::Deny(deny)) => return Err(DraftError::Denied(Box::new(denial(deny)))),
        Err(error) => return Err(DraftError::Denied(Box::new(unevaluated(error)))),
    };
    for claim in permit.issued() {
        if is_reserved(&claim.claim_type) {
            return Err(DraftError::ReservedClaim(claim.claim_type.clone()));
        }
        add(claims, claim);
    }
    claims.insert("x-ms-policy-hash".to_owned(), json!(policy_hash(&text)));
    Ok(())
}

/// Claims with which a policy could speak in the service's name.
fn is_reserved(claim_type: &str) -> bool {
    claim_type.starts_with("x-ms-")
        || claim_type.starts_with("x-casemate-")
        || ["iss", "iat", "nbf", "exp", "jti", "nonce", "aud", "sub", "cnf"].contains(&claim_type)
}

/// Several claims of one type are a set, which JSON shows as an array.
fn add(claims: &mut Claims, claim: &Claim) {
    let value = match &claim.value {
        ClaimValue::Boolean(value) => json!(value),
        ClaimValue::Integer(value) => json!(value),
        ClaimValue::String(value) => json!(value),
    };
    match claims.get_mut(&claim.claim_type) {
        None => {
            claims.insert(claim.claim_type.clone(), value);
        }
        Some(Value::Array(set)) => set.push(value),
        Some(first) => *first = json!([first.take(), value]),
    }
}

fn policy_text(draft: &str) -> Result<String, DraftError> {
    let mut parts = draft.split('.');
    let (Some(_header), Some(payload), Some(_signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(DraftError::Form);
    };
    let payload = from_base64_any(payload).map_err(|_| DraftError::Form)?;
    let payload: Value = serde_json::from_slice(&payload).map_err(|_| DraftError::Form)?;
    let encoded = payload.get("AttestationPolicy").and_then(Value::as_str).ok_or(DraftError::Form)?;
    let text = from_base64_any(encoded).map_err(|_| DraftError::Form)?;
    String::from_utf8(text).map_err(|_| DraftError::Form)
}

/// A policy text as an unsigned JWS.
pub fn policy_jws(text: &str) -> String {
    let payload = json!({"AttestationPolicy": to_base64url(text.as_bytes())});
    format!("{}.{}.", to_base64url(br#"{"alg":"none"}"#), to_base64url(payload.to_string().as_bytes()))
}

/// Claims as an unsigned JWS.
pub fn unsigned(claims: &Claims) -> String {
    let payload = Value::Object(claims.clone()).to_string();
    format!("{}.{}.", to_base64url(br#"{"alg":"none","typ":"JWT"}"#), to_base64url(payload.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

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
            assert!(matches!(error, Err(DraftError::ReservedClaim(found)) if found == claim));
        }
    }

    #[test]
    fn what_is_no_draft_is_refused() {
        tried(
            "",
            expect!["error: expected a JWS whose payload has the member AttestationPolicy in base64url"],
        );
        tried(
            "a.b.c.d",
            expect!["error: expected a JWS whose payload has the member AttestationPolicy in base64url"],
        );
        tried(
            "e30.e30.",
            expect!["error: expected a JWS whose payload has the member AttestationPolicy in base64url"],
        );
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
