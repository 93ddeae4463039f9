//! Deciding on a token's claims, and saying which condition decided.

use serde_json::Value;

use super::parse::canonical_authority;
use super::{Authority, ClaimCondition, Condition, ReleaseDecision, ReleasePolicy, ReleaseRefusal};

/// Longest text of a claim's value in a refusal, in characters.
const MAX_SHOWN: usize = 200;

/// What a condition came to: the claims without which it would not hold, or the reason why it does not.
type Outcome<'a> = Result<Vec<&'a ClaimCondition>, ReleaseRefusal>;

impl ReleasePolicy {
    /// Decides whether a token of `issuer` with `claims` gets the key.
    ///
    /// The caller has verified the token's signature under the keys of `issuer`, and its validity in time. Every branch
    /// is evaluated, so the work is bounded by the policy's size.
    pub fn evaluate(&self, issuer: &str, claims: &Value) -> Result<ReleaseDecision, ReleaseRefusal> {
        let issuer_canonical = canonical_authority(issuer);
        let mut accepted: Option<(&Authority, Vec<&ClaimCondition>)> = None;
        let mut refused = None;
        for (index, authority) in self.authorities.iter().enumerate() {
            if Some(&authority.canonical) != issuer_canonical.as_ref() {
                continue;
            }
            match authority.condition.evaluate(&format!("anyOf[{index}]"), claims) {
                Ok(required) => {
                    accepted = Some(match accepted {
                        None => (authority, required),
                        Some((first, before)) => (first, intersection(before, &required)),
                    });
                }
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        match (accepted, refused) {
            (Some((authority, required)), _) => Ok(ReleaseDecision {
                authority: authority.text.clone(),
                required: required.into_iter().cloned().collect(),
            }),
            (None, Some(refusal)) => Err(refusal),
            (None, None) => Err(self.unknown_issuer(issuer)),
        }
    }

    fn unknown_issuer(&self, issuer: &str) -> ReleaseRefusal {
        let mut expected: Vec<&str> = self.authorities().collect();
        expected.dedup();
        ReleaseRefusal {
            claim: "iss".to_owned(),
            expected: shortened(&expected.join(" or ")),
            actual: shortened(issuer),
            rule: "anyOf[*].authority of the release policy".to_owned(),
        }
    }
}

impl Condition {
    fn evaluate<'a>(&'a self, path: &str, claims: &Value) -> Outcome<'a> {
        match self {
            Condition::Equals(condition) => condition.evaluate(path, claims),
            Condition::AllOf(list) => {
                let mut required = Vec::new();
                for (index, condition) in list.iter().enumerate() {
                    required.extend(condition.evaluate(&format!("{path}.allOf[{index}]"), claims)?);
                }
                Ok(required)
            }
            Condition::AnyOf(list) => any_of(path, list, claims),
        }
    }
}

fn any_of<'a>(path: &str, list: &'a [Condition], claims: &Value) -> Outcome<'a> {
    let mut satisfied: Option<Vec<&ClaimCondition>> = None;
    let mut refusals = Vec::new();
    for (index, condition) in list.iter().enumerate() {
        match condition.evaluate(&format!("{path}.anyOf[{index}]"), claims) {
            Ok(required) => {
                satisfied = Some(match satisfied {
                    None => required,
                    Some(before) => intersection(before, &required),
                });
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    satisfied.ok_or_else(|| combined(path, refusals))
}

impl ClaimCondition {
    fn evaluate<'a>(&'a self, path: &str, claims: &Value) -> Outcome<'a> {
        let actual = self.claim.find(claims);
        if actual == Some(&self.value) {
            return Ok(vec![self]);
        }
        Err(ReleaseRefusal {
            claim: self.claim.to_string(),
            expected: shortened(&self.value.to_string()),
            actual: actual.map_or("missing".to_owned(), |value| shortened(&value.to_string())),
            rule: format!("{path} of the release policy: {} equals {}", self.claim, self.value),
        })
    }
}

/// Only what both branches demanded was needed for the decision.
fn intersection<'a>(mut left: Vec<&'a ClaimCondition>, right: &[&ClaimCondition]) -> Vec<&'a ClaimCondition> {
    left.retain(|condition| right.contains(condition));
    left
}

/// One refusal for several alternatives: joined when they are about one claim, else the first with a count.
fn combined(path: &str, refusals: Vec<ReleaseRefusal>) -> ReleaseRefusal {
    let others = refusals.len().saturating_sub(1);
    let one_claim = refusals.windows(2).all(|pair| matches!(pair, [a, b] if a.claim == b.claim));
    let expected: Vec<&str> = refusals.iter().map(|refusal| refusal.expected.as_str()).collect();
    let expected = shortened(&expected.join(" or "));
    let Some(mut first) = refusals.into_iter().next() else {
        // The parser refuses empty lists; an empty one is satisfied by nothing.
        return ReleaseRefusal {
            claim: path.to_owned(),
            expected: "a satisfied alternative".to_owned(),
            actual: "missing".to_owned(),
            rule: format!("{path} of the release policy"),
        };
    };
    if others == 0 {
        return first;
    }
    if one_claim {
        first.expected = expected;
        first.rule = format!("{path}.anyOf of the release policy");
    } else {
        first.rule = format!("{} (and {others} more alternatives of {path}.anyOf)", first.rule);
    }
    first
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
