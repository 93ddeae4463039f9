//! The policies that decide for one attestation type of a provider: the active one, and one that is being tried beside it.

use std::sync::Arc;

use policy::language::{
    Claim, ClaimValue, Decision, Permit, Policy, PolicyError, TokenProperties, policy_hash,
};
use public_api::Denial;
use public_api::attestation::Claims;
use public_api::attestation_policy::AttestationType;
use serde_json::{Value, json};

use super::quote_facts::QuoteFacts;
use crate::app::platform_policy::{denial, unevaluated};

/// A parsed policy that a provider's owner has set.
pub struct ProviderPolicy {
    /// Counted from 1.
    pub version: u64,
    /// As it was sent.
    pub jws: String,
    /// Claim `x-ms-policy-hash`.
    pub hash: String,
    /// Claim `x-ms-policy-signer`.
    pub signer: Option<Value>,
    policy: Policy,
}

/// Active and staged policy. Without an active one the shipped policy decides.
#[derive(Clone, Default)]
pub struct InForce {
    /// It decides.
    pub active: Option<Arc<ProviderPolicy>>,
    /// It is tried: what it would refuse is logged.
    pub staged: Option<Arc<ProviderPolicy>>,
}

impl ProviderPolicy {
    /// Parses a text.
    pub fn parse(version: u64, jws: String, text: &str, signer: Option<Value>) -> Result<Self, PolicyError> {
        Ok(Self { version, jws, hash: policy_hash(text), signer, policy: Policy::parse(text)? })
    }

    /// Decides about claims, adds what the policy issues to `claims`, and returns what it asks of the token's form.
    pub fn apply(&self, incoming: Vec<Claim>, claims: &mut Claims) -> Result<TokenProperties, Box<Denial>> {
        let permit = apply(&self.policy, incoming, claims)?;
        self.describe(claims);
        Ok(permit.token_properties())
    }

    /// The same for claims about a TPM's quote, of which the policy's configuration rules can ask more.
    pub fn apply_to_quote(
        &self,
        kind: AttestationType,
        incoming: Vec<Claim>,
        claims: &mut Claims,
    ) -> Result<TokenProperties, Box<Denial>> {
        let quote = QuoteFacts::of(&incoming);
        let permit = apply(&self.policy, incoming, claims)?;
        quote.check(kind, &permit)?;
        self.describe(claims);
        Ok(permit.token_properties())
    }

    fn describe(&self, claims: &mut Claims) {
        claims.insert("x-ms-policy-hash".to_owned(), json!(self.hash));
        if let Some(signer) = &self.signer {
            claims.insert("x-ms-policy-signer".to_owned(), signer.clone());
        }
    }
}

/// Evaluates a policy and adds what it issues to the claims.
pub fn apply(policy: &Policy, incoming: Vec<Claim>, claims: &mut Claims) -> Result<Permit, Box<Denial>> {
    let permit = match policy.evaluate(incoming) {
        Ok(Decision::Permit(permit)) => permit,
        Ok(Decision::Deny(deny)) => return Err(Box::new(denial(deny))),
        Err(error) => return Err(Box::new(unevaluated(error))),
    };
    for claim in permit.issued() {
        issue(claims, claim)?;
    }
    Ok(permit)
}

/// Adds an issued claim. Several of one type are a set, which JSON shows as an array. A claim that the service states
/// itself can be issued only as what it is.
fn issue(claims: &mut Claims, claim: &Claim) -> Result<(), Box<Denial>> {
    let value = match &claim.value {
        ClaimValue::Boolean(value) => json!(value),
        ClaimValue::Integer(value) => json!(value),
        ClaimValue::String(value) => json!(value),
    };
    if is_reserved(&claim.claim_type) {
        return match claims.get(&claim.claim_type) {
            Some(own) if *own == value => Ok(()),
            own => Err(reserved(&claim.claim_type, own, &value)),
        };
    }
    match claims.get_mut(&claim.claim_type) {
        None => {
            claims.insert(claim.claim_type.clone(), value);
        }
        Some(Value::Array(set)) => set.push(value),
        Some(first) => *first = json!([first.take(), value]),
    }
    Ok(())
}

/// Claims with which a policy could speak in the service's name.
fn is_reserved(claim_type: &str) -> bool {
    claim_type.starts_with("x-ms-")
        || claim_type.starts_with("x-casemate-")
        || ["iss", "iat", "nbf", "exp", "jti", "nonce", "aud", "sub", "cnf", "secureboot"]
            .contains(&claim_type)
}

fn reserved(claim_type: &str, own: Option<&Value>, issued: &Value) -> Box<Denial> {
    Box::new(Denial::new(
        "PolicyIssuesReservedClaim",
        claim_type,
        own.map_or("no such claim".to_owned(), Value::to_string),
        issued.to_string(),
        "claims named x-ms-*, x-casemate-* and the registered names of RFC 7519 are the service's own",
        "issue the claim under another name in the policy",
    ))
}
