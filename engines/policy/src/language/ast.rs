//! What a parsed policy consists of. Only the parser makes these values, so every name in them is known and every
//! identifier is the index of a condition of the same rule.

use std::collections::HashMap;

use super::configuration::KnownProperty;
use super::values::ClaimValue;
use crate::query::{Json, Query};

/// A checked policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub(super) version: Version,
    pub(super) configuration: Vec<Rule>,
    pub(super) authorization: Vec<Rule>,
    pub(super) issuance: Vec<Rule>,
    /// A number for each claim type that a rule names, so that claims are found without comparing texts.
    pub(super) types: HashMap<String, TypeId>,
}

impl Policy {
    /// The language version that the policy states.
    pub fn version(&self) -> Version {
        self.version
    }

    /// All rules in the order in which they run.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.configuration.iter().chain(&self.authorization).chain(&self.issuance)
    }
}

/// The number of a claim type that the policy names.
pub(super) type TypeId = usize;

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
    /// Conditions whose claims the action uses.
    pub sources: Vec<usize>,
}

/// `identifier:[property op expression, ...]` or `![...]`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    pub negated: bool,
    pub terms: Vec<Term>,
    /// Whether the action runs once for each claim that matches: the identifier is used as a single value.
    pub multiplies: bool,
    /// Whether all claims that match are needed, because the identifier is used as a set.
    pub whole: bool,
    /// The claim type that the condition asks for by `type == "..."`, with the place of that term.
    pub subject: Option<(usize, TypeId)>,
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
    /// A JSON text that the policy writes out, read once.
    Document(Json),
    /// A JMESPath expression that the policy writes out, read once.
    Query(Query),
    Property {
        condition: usize,
        property: Property,
    },
    Call {
        function: Function,
        arguments: Vec<Expression>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    JmesPath,
    JsonToClaimValue,
    IsSubsetOf,
    AppendString,
    NegateBool,
    ContainsOnlyValue,
}

impl Function {
    pub const ALL: [Function; 6] = [
        Function::JmesPath,
        Function::JsonToClaimValue,
        Function::IsSubsetOf,
        Function::AppendString,
        Function::NegateBool,
        Function::ContainsOnlyValue,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Function::JmesPath => "JmesPath",
            Function::JsonToClaimValue => "JsonToClaimValue",
            Function::IsSubsetOf => "IsSubsetOf",
            Function::AppendString => "AppendString",
            Function::NegateBool => "NegateBool",
            Function::ContainsOnlyValue => "ContainsOnlyValue",
        }
    }

    pub fn arity(self) -> usize {
        if matches!(self, Function::NegateBool | Function::JsonToClaimValue) { 1 } else { 2 }
    }

    /// Whether the argument stands for all claims that matched, not for a single one.
    pub fn takes_set(self, argument: usize) -> bool {
        match self {
            Function::IsSubsetOf => true,
            Function::ContainsOnlyValue => argument == 0,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Permit,
    Deny,
    Add(NewClaim),
    Issue(NewClaim),
    IssueClaim { condition: usize },
    IssueProperty { property: KnownProperty, claim: NewClaim },
}

impl Action {
    /// The claim that the action makes, if it makes one that later rules see.
    pub fn makes(&self) -> Option<&NewClaim> {
        match self {
            Action::Add(claim) | Action::Issue(claim) | Action::IssueProperty { claim, .. } => Some(claim),
            Action::Permit | Action::Deny | Action::IssueClaim { .. } => None,
        }
    }
}

/// `type = expression, value = expression`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NewClaim {
    pub claim_type: Expression,
    /// The number of the type where it is a literal.
    pub type_id: Option<TypeId>,
    pub value: Expression,
}
