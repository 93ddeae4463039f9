//! Key-release policies: which attestation token a key is released to.
//!
//! Source: the grammar page "Azure Key Vault secure key release policy grammar". A policy lists authorities (token
//! issuers) and, under each, conditions on claims. Only `equals` decides; the operators that the grammar reserves are
//! refused by name when the policy is parsed, never ignored. A claim that is missing makes its condition false.
//!
//! A [`ReleaseDecision`] comes from [`ReleasePolicy::evaluate`] and from nowhere else.

mod claim;
mod evaluate;
mod parse;

#[cfg(test)]
mod tests;

use serde_json::Value;

pub use claim::ClaimPath;
pub use parse::ReleasePolicyError;

/// Longest accepted policy document, in bytes.
pub const MAX_POLICY_BYTES: usize = 64 * 1024;
/// Deepest accepted nesting of `anyOf` and `allOf` below an authority.
pub const MAX_DEPTH: usize = 16;
/// Most `equals` conditions in one policy.
pub const MAX_CONDITIONS: usize = 2048;

/// A checked release policy.
#[derive(Clone, Debug, PartialEq)]
pub struct ReleasePolicy {
    authorities: Vec<Authority>,
}

/// One token issuer and what its tokens must show.
#[derive(Clone, Debug, PartialEq)]
struct Authority {
    /// As the policy writes it, for people.
    text: String,
    /// As it is compared.
    canonical: String,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Equals(ClaimCondition),
    AnyOf(Vec<Condition>),
    AllOf(Vec<Condition>),
}

/// One `{"claim": ..., "equals": ...}` of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimCondition {
    /// Where in the token the claim stands.
    pub claim: ClaimPath,
    /// String, number or boolean; compared by type and exactly (`1` is not `1.0`, `"true"` is not `true`).
    pub value: Value,
}

/// Proof that a policy accepted a token's claims. Only [`ReleasePolicy::evaluate`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct ReleaseDecision {
    authority: String,
    required: Vec<ClaimCondition>,
}

impl ReleaseDecision {
    /// The authority that vouched, as the policy writes it.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The conditions without which no satisfied branch of the policy would have been satisfied.
    pub fn required(&self) -> &[ClaimCondition] {
        &self.required
    }

    /// Whether every satisfied branch of the policy explicitly demanded `claim` (dotted path) to equal `value`.
    ///
    /// A policy that would have released the key without that condition does not mention it in this sense.
    pub fn mentions(&self, claim: &str, value: &Value) -> bool {
        self.required.iter().any(|condition| condition.claim.as_str() == claim && condition.value == *value)
    }
}

/// Why a token does not get the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{claim}: expected {expected}, found {actual} (rule: {rule})")]
pub struct ReleaseRefusal {
    /// The claim that decided, as a dotted path; `iss` when no authority of the policy is the token's issuer.
    pub claim: String,
    /// What the policy demands.
    pub expected: String,
    /// What the token says, shortened; `missing` when it says nothing.
    pub actual: String,
    /// Where in the policy the condition stands, and the condition.
    pub rule: String,
}

impl ReleasePolicy {
    /// The authorities, as the policy writes them.
    pub fn authorities(&self) -> impl Iterator<Item = &str> {
        self.authorities.iter().map(|authority| authority.text.as_str())
    }
}
