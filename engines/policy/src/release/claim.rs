//! Dotted paths to claims (`x-ms-isolation-tee.x-ms-compliance-status`).

use std::fmt;

use serde_json::Value;

/// A path of member names, separated by dots; it never leads into an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(String);

impl ClaimPath {
    /// Checks a path: every member name between dots has at least one character.
    pub fn parse(text: &str) -> Option<Self> {
        let whole = !text.is_empty() && text.split('.').all(|member| !member.is_empty());
        whole.then(|| Self(text.to_owned()))
    }

    /// The path as the policy writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value at this path, if every member on the way is an object's.
    pub fn find<'a>(&self, claims: &'a Value) -> Option<&'a Value> {
        self.0.split('.').try_fold(claims, |value, member| value.as_object()?.get(member))
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
