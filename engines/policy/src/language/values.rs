//! Claims and their values.

use std::fmt;

/// One claim of the incoming or outgoing set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its type, for example `x-ms-sevsnpvm-vmpl`.
    pub claim_type: String,
    /// Its value.
    pub value: ClaimValue,
    /// Who states it.
    pub issuer: Issuer,
    /// A read-only claim can be compared but not issued.
    pub read_only: bool,
}

impl Claim {
    /// A claim that the attestation service states.
    pub fn of_service(claim_type: impl Into<String>, value: impl Into<ClaimValue>) -> Self {
        Self {
            claim_type: claim_type.into(),
            value: value.into(),
            issuer: Issuer::AttestationService,
            read_only: false,
        }
    }

    /// A claim that the client states beside its evidence, and that nothing vouches for.
    pub fn of_client(claim_type: impl Into<String>, value: impl Into<ClaimValue>) -> Self {
        Self { issuer: Issuer::CustomClaim, ..Self::of_service(claim_type, value) }
    }

    /// How many steps it costs to copy or compare this claim.
    pub(super) fn weight(&self) -> u64 {
        self.value.weight() + self.claim_type.len() as u64 / 64
    }

    /// This claim as one that can be compared but not issued, like `pcrs`.
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }
}

/// The three types of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimValue {
    /// `true` or `false`.
    Boolean(bool),
    /// A number without fraction.
    Integer(i64),
    /// Text.
    String(String),
}

impl ClaimValue {
    /// The name of the value's type, as `valueType` has it.
    pub fn type_name(&self) -> &'static str {
        match self {
            ClaimValue::Boolean(_) => "Boolean",
            ClaimValue::Integer(_) => "Integer",
            ClaimValue::String(_) => "String",
        }
    }

    /// How many steps it costs to copy or compare this value.
    pub(super) fn weight(&self) -> u64 {
        match self {
            ClaimValue::String(text) => 1 + text.len() as u64 / 64,
            _ => 1,
        }
    }
}

impl fmt::Display for ClaimValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClaimValue::Boolean(value) => write!(formatter, "{value}"),
            ClaimValue::Integer(value) => write!(formatter, "{value}"),
            ClaimValue::String(value) => write!(formatter, "{value:?}"),
        }
    }
}

impl From<bool> for ClaimValue {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i64> for ClaimValue {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for ClaimValue {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<String> for ClaimValue {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

/// Who states a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// The service, from verified evidence.
    AttestationService,
    /// The policy itself, by `add` or `issue`.
    AttestationPolicy,
    /// The client.
    CustomClaim,
}

impl Issuer {
    /// All issuers.
    pub const ALL: [Issuer; 3] = [Issuer::AttestationService, Issuer::AttestationPolicy, Issuer::CustomClaim];

    /// The name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Issuer::AttestationService => "AttestationService",
            Issuer::AttestationPolicy => "AttestationPolicy",
            Issuer::CustomClaim => "CustomClaim",
        }
    }
}

/// Longest text of one value that a person is shown, in characters.
const MAX_SHOWN: usize = 200;

/// A value for a person, cut off where it is long.
pub(super) fn shown(value: &ClaimValue) -> String {
    let text = match value {
        ClaimValue::String(text) => match text.char_indices().nth(MAX_SHOWN) {
            Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
            None => value.to_string(),
        },
        _ => value.to_string(),
    };
    match text.char_indices().nth(2 * MAX_SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
