//! What a parsed policy consists of. Only the parser makes these values, so every name in them is known and every
//! identifier is the index of a condition of the same rule.

use super::values::ClaimValue;

/// A checked policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub(super) version: Version,
    pub(super) configuration: Vec<Rule>,
    pub(super) authorization: Vec<Rule>,
    pub(super) issuance: Vec<Rule>,
}

impl Policy {
    /// The language version that the policy states.
    pub fn version(&self) -> Version {
        self.version
    }
}

/// Versions of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Authorization and issuance rules.
    V1_0,
    /// Configuration rules.
    V1_1,
    /// `!` conditions and functions.
    V1_2,
}

/// `condition && condition => action;`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub line: usize,
    pub text: String,
    pub conditions: Vec<Condition>,
    pub action: Action,
}

/// `identifier:[property op expression, ...]` or `![...]`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    pub negated: bool,
    pub terms: Vec<Term>,
    /// Whether the action runs once for each claim that matches: the identifier is used as a single value.
    pub multiplies: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    pub property: Property,
    pub operator: Operator,
    pub operand: Expression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property {
    Type,
    Value,
    ValueType,
    Issuer,
}

impl Property {
    pub fn name(self) -> &'static str {
        match self {
            Property::Type => "type",
            Property::Value => "value",
            Property::ValueType => "valueType",
            Property::Issuer => "issuer",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    pub fn is_ordering(self) -> bool {
        !matches!(self, Operator::Equal | Operator::NotEqual)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Literal(ClaimValue),
    Property { condition: usize, property: Property },
    Call { function: Function, arguments: Vec<Expression> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    AppendString,
    NegateBool,
    IsSubsetOf,
    ContainsOnlyValue,
}

impl Function {
    pub const ALL: [Function; 4] =
        [Function::AppendString, Function::NegateBool, Function::IsSubsetOf, Function::ContainsOnlyValue];

    pub fn name(self) -> &'static str {
        match self {
            Function::AppendString => "AppendString",
            Function::NegateBool => "NegateBool",
            Function::IsSubsetOf => "IsSubsetOf",
            Function::ContainsOnlyValue => "ContainsOnlyValue",
        }
    }

    pub fn arity(self) -> usize {
        if self == Function::NegateBool { 1 } else { 2 }
    }

    /// Whether the argument stands for all claims that matched, not for a single one.
    pub fn takes_set(self, argument: usize) -> bool {
        match self {
            Function::IsSubsetOf => true,
            Function::ContainsOnlyValue => argument == 0,
            Function::AppendString | Function::NegateBool => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Permit,
    Deny,
    Add { claim_type: Expression, value: Expression },
    Issue { claim_type: Expression, value: Expression },
    IssueClaim { condition: usize },
    IssueProperty { name: &'static str, value: Expression },
}
