//! The attestation-policy language of Azure Attestation, versions 1.0 to 1.2: text in, decision and claims out.
//!
//! Source: the documentation pages "Claim and claim rules", "Claim rule functions" and "Attestation policy version
//! 1.0 / 1.1 / 1.2".
//!
//! ```text
//! version = 1.2;
//! authorizationrules { [type=="x-ms-sevsnpvm-is-debuggable", value==true] => deny(); => permit(); };
//! issuancerules      { c:[type=="x-ms-sevsnpvm-guestsvn"] => issue(type="svn", value=c.value); };
//! ```
//!
//! Where the pages leave a choice, this is what happens here:
//!
//! * A condition whose identifier is used as a single value makes the action run once for each claim that matches. A
//!   condition without identifier, or whose identifier is used only as a set (`ContainsOnlyValue`, `IsSubsetOf`), does
//!   not multiply the action.
//! * `!=` is true between values of different types; `<`, `<=`, `>`, `>=` are false unless both are integers.
//! * Issuers, value types, properties, functions and actions are closed sets: a name outside of them does not parse.
//! * Without a `permit()` the decision is deny, also where the section is missing.
//! * `JmesPath` and `JsonToClaimValue` are refused by name when the policy is parsed.

mod ast;
mod evaluate;
mod explain;
mod lexer;
mod parse;
mod parse_rule;
mod values;

#[cfg(test)]
mod tests;

use base64::Engine as _;

pub use ast::{Policy, Version};
pub use evaluate::EvaluationError;
pub use values::{Claim, ClaimValue, Issuer};

/// Longest accepted policy text, in bytes.
pub const MAX_POLICY_BYTES: usize = 128 * 1024;
/// Most rules in one policy.
pub const MAX_RULES: usize = 1024;
/// Most conditions in one rule.
pub const MAX_CONDITIONS: usize = 32;
/// Deepest nesting of function calls.
pub const MAX_CALL_DEPTH: usize = 16;
/// Steps that one evaluation may take; a comparison is one, and so are 64 bytes that are copied.
pub const MAX_WORK: u64 = 500_000;

/// Why a text is not a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct PolicyError {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What could stand here.
    pub expected: String,
    /// What stands here.
    pub found: String,
}

/// What a policy says about a set of claims.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The claims were permitted.
    Permit(Permit),
    /// They were not, and why.
    Deny(Deny),
}

/// Proof that a policy permitted a set of claims. Only [`Policy::evaluate`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Permit {
    issued: Vec<Claim>,
    properties: Vec<Claim>,
}

impl Permit {
    /// Claims that the policy issued, in order; several of one type are a set.
    pub fn issued(&self) -> &[Claim] {
        &self.issued
    }

    /// Properties that the policy set (`issueproperty`), in order.
    pub fn properties(&self) -> &[Claim] {
        &self.properties
    }
}

/// A denial, in the parts that a person needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{claim}: expected {expected}, found {actual} (policy line {line}: {rule})")]
pub struct Deny {
    /// The rule that decided, as the policy writes it.
    pub rule: String,
    /// The line of the policy on which that rule begins.
    pub line: usize,
    /// Type of the claim that decided.
    pub claim: String,
    /// What would have been permitted.
    pub expected: String,
    /// What the claims say; `missing` when they say nothing.
    pub actual: String,
}

/// `x-ms-policy-hash`: base64url of SHA-256 over the base64url text of the policy.
///
/// Source: "claims issued by Azure Attestation", `BASE64URL(SHA256(UTF8(BASE64URL(UTF8(policy text)))))`.
pub fn policy_hash(text: &str) -> String {
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let encoded = engine.encode(text);
    engine.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, encoded.as_bytes()))
}
