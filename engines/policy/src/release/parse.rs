//! From JSON text to a checked [`ReleasePolicy`]. Unknown and repeated members, reserved operators, empty lists and
//! anything too large or too deep are errors that name the place.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use url::Url;

use super::{
    Authority, ClaimCondition, ClaimPath, Condition, MAX_CONDITIONS, MAX_DEPTH, MAX_POLICY_BYTES,
    ReleasePolicy,
};

const VERSIONS: [&str; 3] = ["1.0.0", "1.0", "0.2"];

/// Why a document is not a release policy.
#[derive(Debug, thiserror::Error)]
pub enum ReleasePolicyError {
    /// Longer than [`MAX_POLICY_BYTES`].
    #[error("the release policy has {0} bytes, at most {MAX_POLICY_BYTES} are accepted")]
    TooLong(usize),
    /// Not JSON, or a member that the grammar does not have, or one twice; line and column are in the text.
    #[error("the release policy cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A version that the grammar does not have.
    #[error("release policy version {0:?} is not known, expected \"1.0.0\"")]
    Version(String),
    /// A list without elements, which would say yes or no to everything.
    #[error("{0} has no elements, expected at least one")]
    Empty(String),
    /// Not an absolute https URL.
    #[error("{path}: authority {text:?} is not an https URL without query and fragment")]
    Authority {
        /// Place in the policy.
        path: String,
        /// The authority as written.
        text: String,
    },
    /// An operator that the grammar reserves for later.
    #[error("{path}: operator `{operator}` is reserved and decides nothing, expected `equals`")]
    Reserved {
        /// Place in the policy.
        path: String,
        /// Name of the operator.
        operator: &'static str,
    },
    /// Neither a claim condition nor exactly one list.
    #[error("{path}: expected either `claim` with `equals`, or one of `anyOf` and `allOf`")]
    Shape {
        /// Place in the policy.
        path: String,
    },
    /// A claim path with an empty member name.
    #[error("{path}: claim {text:?} is not a path of names with dots between them")]
    Claim {
        /// Place in the policy.
        path: String,
        /// The claim as written.
        text: String,
    },
    /// `equals` with an object, an array or null.
    #[error("{0}: `equals` takes a string, a number, true or false")]
    Value(String),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("{0}: nested more than {MAX_DEPTH} deep")]
    TooDeep(String),
    /// More conditions than [`MAX_CONDITIONS`].
    #[error("the release policy has more than {MAX_CONDITIONS} conditions")]
    TooMany,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPolicy {
    version: String,
    #[serde(alias = "anyof")]
    any_of: Vec<RawAuthority>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawAuthority {
    authority: String,
    #[serde(default, alias = "anyof")]
    any_of: Option<Vec<RawCondition>>,
    #[serde(default, alias = "allof")]
    all_of: Option<Vec<RawCondition>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawCondition {
    claim: Option<String>,
    #[serde(default, deserialize_with = "present")]
    equals: Option<Value>,
    #[serde(default, alias = "anyof")]
    any_of: Option<Vec<RawCondition>>,
    #[serde(default, alias = "allof")]
    all_of: Option<Vec<RawCondition>>,
    not_equals: Option<IgnoredAny>,
    less: Option<IgnoredAny>,
    less_or_equals: Option<IgnoredAny>,
    greater: Option<IgnoredAny>,
    greater_or_equals: Option<IgnoredAny>,
    exists: Option<IgnoredAny>,
}

/// Keeps `null` apart from a member that is not there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl RawCondition {
    fn reserved_operator(&self) -> Option<&'static str> {
        [
            (self.not_equals.is_some(), "notEquals"),
            (self.less.is_some(), "less"),
            (self.less_or_equals.is_some(), "lessOrEquals"),
            (self.greater.is_some(), "greater"),
            (self.greater_or_equals.is_some(), "greaterOrEquals"),
            (self.exists.is_some(), "exists"),
        ]
        .into_iter()
        .find_map(|(used, name)| used.then_some(name))
    }
}

impl ReleasePolicy {
    /// Reads a policy document (UTF-8 JSON).
    pub fn parse(document: &[u8]) -> Result<Self, ReleasePolicyError> {
        if document.len() > MAX_POLICY_BYTES {
            return Err(ReleasePolicyError::TooLong(document.len()));
        }
        let raw: RawPolicy = serde_json::from_slice(document)?;
        if !VERSIONS.contains(&raw.version.as_str()) {
            return Err(ReleasePolicyError::Version(raw.version));
        }
        if raw.any_of.is_empty() {
            return Err(ReleasePolicyError::Empty("anyOf".to_owned()));
        }
        let mut checker = Checker { conditions: 0 };
        let authorities =
            raw.any_of.into_iter().enumerate().map(|(index, raw)| checker.authority(index, raw));
        Ok(Self { authorities: authorities.collect::<Result<_, _>>()? })
    }
}

struct Checker {
    conditions: usize,
}

impl Checker {
    fn authority(&mut self, index: usize, raw: RawAuthority) -> Result<Authority, ReleasePolicyError> {
        let path = format!("anyOf[{index}]");
        let Some(canonical) = canonical_authority(&raw.authority) else {
            return Err(ReleasePolicyError::Authority { path, text: raw.authority });
        };
        let condition = match (raw.any_of, raw.all_of) {
            (Some(list), None) => Condition::AnyOf(self.list(&format!("{path}.anyOf"), list, 1)?),
            (None, Some(list)) => Condition::AllOf(self.list(&format!("{path}.allOf"), list, 1)?),
            _ => return Err(ReleasePolicyError::Shape { path }),
        };
        Ok(Authority { text: raw.authority, canonical, condition })
    }

    fn list(
        &mut self,
        path: &str,
        list: Vec<RawCondition>,
        depth: usize,
    ) -> Result<Vec<Condition>, ReleasePolicyError> {
        if list.is_empty() {
            return Err(ReleasePolicyError::Empty(path.to_owned()));
        }
        if depth > MAX_DEPTH {
            return Err(ReleasePolicyError::TooDeep(path.to_owned()));
        }
        let checked = list.into_iter().enumerate();
        checked.map(|(index, raw)| self.condition(format!("{path}[{index}]"), raw, depth)).collect()
    }

    fn condition(
        &mut self,
        path: String,
        raw: RawCondition,
        depth: usize,
    ) -> Result<Condition, ReleasePolicyError> {
        if let Some(operator) = raw.reserved_operator() {
            return Err(ReleasePolicyError::Reserved { path, operator });
        }
        match (raw.claim, raw.equals, raw.any_of, raw.all_of) {
            (Some(claim), Some(value), None, None) => self.equals(path, claim, value),
            (None, None, Some(list), None) => {
                Ok(Condition::AnyOf(self.list(&format!("{path}.anyOf"), list, depth + 1)?))
            }
            (None, None, None, Some(list)) => {
                Ok(Condition::AllOf(self.list(&format!("{path}.allOf"), list, depth + 1)?))
            }
            _ => Err(ReleasePolicyError::Shape { path }),
        }
    }

    fn equals(&mut self, path: String, claim: String, value: Value) -> Result<Condition, ReleasePolicyError> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(ReleasePolicyError::TooMany);
        }
        if !matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_)) {
            return Err(ReleasePolicyError::Value(path));
        }
        match ClaimPath::parse(&claim) {
            Some(claim) => Ok(Condition::Equals(ClaimCondition { claim, value })),
            None => Err(ReleasePolicyError::Claim { path, text: claim }),
        }
    }
}

/// The form in which authorities and issuers are compared: scheme and host in lower case, no default port, no slash at
/// the end (policies write one, tokens do not). `None` for anything but a plain https URL.
pub(super) fn canonical_authority(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let plain = url.scheme() == "https"
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let canonical = url.as_str();
    plain.then(|| canonical.strip_suffix('/').unwrap_or(canonical).to_owned())
}
