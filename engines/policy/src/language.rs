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
//! * Configuration rules run first, then authorization rules, then issuance rules, whatever the order of the sections; each
//!   section stands at most once. A claim that a rule makes is seen by all rules after it, with the issuer
//!   `AttestationPolicy`, and not by the rule itself.
//! * A condition whose identifier is used as a single value makes the action run once for each claim that matches. A
//!   condition without identifier, or whose identifier is used only as a set (`ContainsOnlyValue`, `IsSubsetOf`), does
//!   not multiply the action. `permit()` and `deny()` stop at the first combination that holds.
//! * `=` and `==` mean the same in conditions. A condition without `issuer` takes claims of every issuer; that an issuer is
//!   `CustomClaim` by default is about claims that a client states ([`Claim::of_client`]).
//! * `!=` is true between values of different types; `<`, `<=`, `>`, `>=` are false unless both are integers.
//! * The values that a condition compares with are computed before claims are looked at. Each is one value: an empty value
//!   or a set of several is an error there, and an error denies.
//! * Issuers, value types, properties, functions and actions are closed sets: a name outside of them does not parse. Texts
//!   have the escapes `\"` and `\\`; integers are decimal and of 64 bits; `//` comments end with their line.
//! * Without a `permit()` the decision is deny, also where the section is missing.
//! * Published policies leave out the `;` of rules and the `type=` of a first argument, so both may be left out. One issues
//!   in `authorizationrules`; that makes the claim for later rules, and nothing reaches the token from there.
//! * `JmesPath` gives JSON text, with the quotation marks of a string; its results and those of `JsonToClaimValue`,
//!   `AppendString` and `NegateBool` are read-only when an argument is. So is a claim whose *type* was made of a read-only
//!   one. `JsonToClaimValue` takes no text that is not JSON, no object, no fraction, and no integer beyond 64 bits; of an
//!   array it makes a claim for each element that is not null, and of null none.
//! * JMESPath is evaluated as its specification says, plus `equals_ignore_case`. Bare `true` and `null` are members there,
//!   not values, also where a published policy means the values.
//! * Of several rules that set one property the last one counts; what has a range outside of it is refused.
//!
//! Work and memory are bounded on any input by [`MAX_WORK`] and the other constants here.

mod ast;
mod call;
mod configuration;
mod evaluate;
mod explain;
mod lexer;
mod parse;
mod parse_expression;
mod parse_rule;
mod run;
mod values;

#[cfg(test)]
mod tests;

use base64::Engine as _;

pub use ast::{Policy, Version};
pub use configuration::{Configuration, MAX_REPORT_VALIDITY_IN_MINUTES, TokenProperties};
pub use evaluate::EvaluationError;
pub use values::{Claim, ClaimValue, Issuer};

pub use crate::query::{
    MAX_JSON_BYTES, MAX_QUERY_BYTES, MAX_QUERY_DEPTH, MAX_QUERY_OPENINGS, MAX_QUERY_SYMBOLS,
};

/// Longest accepted policy text, in bytes.
pub const MAX_POLICY_BYTES: usize = 128 * 1024;
/// Most rules in one policy.
pub const MAX_RULES: usize = 1024;
/// Most conditions in one rule.
pub const MAX_CONDITIONS: usize = 32;
/// Deepest nesting of function calls.
pub const MAX_CALL_DEPTH: usize = 16;
/// Steps that one evaluation may take. Looking at a claim is one; so is each node of a JMESPath expression that is
/// evaluated, each element of an array that is made, half of each JSON value that is read, and 64 bytes of text that are
/// copied or compared. Memory follows: a step makes at most about 100 bytes. A denial is explained with as many again.
pub const MAX_WORK: u64 = 1_000_000;

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
    configuration: Configuration,
    token_properties: TokenProperties,
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

    /// What the configuration rules asked of the service.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// What the issuance rules ask of the token's form.
    pub fn token_properties(&self) -> TokenProperties {
        self.token_properties
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
    /// What the claims say; `missing` when they say nothing. Of a claim that the policy made it tells the rule's line.
    pub actual: String,
    /// How the policy made that claim, from its last rule back to the evidence; empty for a claim of the evidence.
    pub derived_from: Vec<Derivation>,
}

/// A rule that makes a claim of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// Type of the claim that it makes.
    pub claim: String,
    /// The rule, as the policy writes it.
    pub rule: String,
    /// The line on which it begins.
    pub line: usize,
    /// Types of the claims that it uses.
    pub from: Vec<String>,
}

/// `x-ms-policy-hash`: base64url of SHA-256 over the base64url text of the policy.
///
/// Source: "claims issued by Azure Attestation", `BASE64URL(SHA256(UTF8(BASE64URL(UTF8(policy text)))))`.
pub fn policy_hash(text: &str) -> String {
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let encoded = engine.encode(text);
    engine.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, encoded.as_bytes()))
}
