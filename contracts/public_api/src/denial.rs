//! A refusal, explained: the one shape in which every service, the command line and the log say no.

use serde::{Deserialize, Serialize};

/// Why something was refused. Every field is for people; `code` is for programs and never changes its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[error("{code}: {claim}: expected {expected}, found {actual} (rule: {rule}); {remedy}")]
pub struct Denial {
    /// Stable identifier in upper camel case, for example `LaunchMeasurementUnknown`.
    pub code: String,
    /// What was claimed, as the token or the evidence names it, for example `x-ms-sevsnpvm-launchmeasurement`.
    pub claim: String,
    /// The value, or the set of values, that would have been accepted.
    pub expected: String,
    /// The value that was found; never a secret.
    pub actual: String,
    /// The rule that decided: a line of a policy, or the document and section of a format.
    pub rule: String,
    /// What the reader can do about it.
    pub remedy: String,
}

impl Denial {
    /// A denial from its six parts, in the order of the fields.
    pub fn new(
        code: impl Into<String>,
        claim: impl Into<String>,
        expected: impl Into<String>,
        actual: impl Into<String>,
        rule: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            code: code.into(),
            claim: claim.into(),
            expected: expected.into(),
            actual: actual.into(),
            rule: rule.into(),
            remedy: remedy.into(),
        }
    }
}

/// The error envelope of Resource Manager, Key Vault and Azure Attestation: `{"error":{"code","message",...}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// The error itself.
    pub error: ErrorDetail,
}

/// One error, perhaps with nested ones (Resource Manager common error format).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorDetail {
    /// Stable code, for example `BadRequest`.
    pub code: String,
    /// Text for people.
    pub message: String,
    /// The property that is meant, as a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Nested errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<ErrorDetail>,
    /// Present when a policy or a check of trust refused: the five parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
}

impl ErrorBody {
    /// An envelope around a code and a message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        let error = ErrorDetail { code: code.into(), message: message.into(), ..ErrorDetail::default() };
        Self { error }
    }

    /// An envelope around a refusal; the message is its one-line form.
    pub fn denied(code: impl Into<String>, denial: Denial) -> Self {
        let mut body = Self::new(code, denial.to_string());
        body.error.denial = Some(denial);
        body
    }
}
