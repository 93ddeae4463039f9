//! One rule: conditions, action, expressions. Names are resolved here; what is unknown does not get through.

use super::ast::{Action, Condition, Expression, Function, Operator, Property, Rule, Term, Version};
use super::lexer::{Token, TokenKind, place};
use super::parse::{Cursor, Section};
use super::values::{ClaimValue, Issuer};
use super::{MAX_CALL_DEPTH, MAX_CONDITIONS, PolicyError};

/// Names of properties that `issueproperty` can set, and the type of each value.
const CONFIGURATION_PROPERTIES: [(&str, &str); 3] = [
    ("x-ms-sgx-tcbidentifier", "String"),
    ("require_valid_aik_cert", "Boolean"),
    ("required_pcr_mask", "Integer"),
];
const ISSUANCE_PROPERTIES: [(&str, &str); 2] =
    [("report_validity_in_minutes", "Integer"), ("omit_x5c", "Boolean")];

/// How an identifier was used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Single,
    Set,
}

/// What is known while a rule is read.
#[derive(Default)]
struct Scope {
    /// The identifier of each condition so far.
    identifiers: Vec<Option<String>>,
    /// Conditions whose identifier is used as a single value.
    single: Vec<usize>,
}

impl Scope {
    fn resolve(&mut self, word: &str, used: Use) -> Option<usize> {
        let index = self.identifiers.iter().position(|known| known.as_deref() == Some(word))?;
        if used == Use::Single {
            self.single.push(index);
        }
        Some(index)
    }
}

impl Cursor<'_> {
    pub(super) fn rule(&mut self, section: Section) -> Result<Rule, PolicyError> {
        let start = self.peek().span.start;
        let mut scope = Scope::default();
        let mut conditions = Vec::new();
        if !self.takes("=>") {
            loop {
                if conditions.len() == MAX_CONDITIONS {
                    return Err(self.error(&format!("at most {MAX_CONDITIONS} conditions")));
                }
                conditions.push(self.condition(&mut scope)?);
                if !self.takes("&&") {
                    break;
                }
            }
            if !self.takes("=>") {
                return Err(self.error("`&&` or `=>`"));
            }
        }
        let action = self.action(section, &mut scope)?;
        let end = self.peek().span.start;
        self.require(";")?;
        for index in scope.single {
            if let Some(condition) = conditions.get_mut(index) {
                condition.multiplies = true;
            }
        }
        let text = self.source.get(start..end).unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Rule { line: place(self.source, start).0, text, conditions, action })
    }

    fn condition(&mut self, scope: &mut Scope) -> Result<Condition, PolicyError> {
        let token = self.peek();
        let negated = self.takes("!");
        if negated && self.version < Version::V1_2 {
            return Err(self.error_at(token, "no `!` before version 1.2"));
        }
        let mut identifier = None;
        if let (TokenKind::Word(word), false) = (&token.kind, negated) {
            self.next += 1;
            self.require(":")?;
            if scope.identifiers.iter().flatten().any(|known| known == word) {
                return Err(self.error_at(token, "an identifier that this rule does not have yet"));
            }
            identifier = Some(word.clone());
        }
        if !self.takes("[") {
            let expected = if negated || identifier.is_some() { "`[`" } else { "a condition or `=>`" };
            return Err(self.error(expected));
        }
        let mut terms = vec![self.term(scope)?];
        while self.takes(",") {
            terms.push(self.term(scope)?);
        }
        if !self.takes("]") {
            return Err(self.error("`,` or `]`"));
        }
        scope.identifiers.push(identifier);
        Ok(Condition { negated, terms, multiplies: false })
    }

    fn term(&mut self, scope: &mut Scope) -> Result<Term, PolicyError> {
        let property = self.property()?;
        let token = self.peek();
        let operator = self.operator()?;
        if operator.is_ordering() && property != Property::Value {
            return Err(self.error_at(token, "`==` or `!=`, the only operators for texts"));
        }
        let token = self.peek();
        let operand = self.expression(scope, Use::Single, 0)?;
        if let Expression::Literal(value) = &operand {
            self.check_literal(token, property, operator, value)?;
        }
        Ok(Term { property, operator, operand })
    }

    fn property(&mut self) -> Result<Property, PolicyError> {
        let expected = "`type`, `value`, `valueType` or `issuer`";
        let token = self.peek();
        match self.require_word(expected)? {
            "type" => Ok(Property::Type),
            "value" => Ok(Property::Value),
            "valueType" => Ok(Property::ValueType),
            "issuer" => Ok(Property::Issuer),
            _ => Err(self.error_at(token, expected)),
        }
    }

    fn operator(&mut self) -> Result<Operator, PolicyError> {
        let token = self.advance();
        match &token.kind {
            TokenKind::Symbol("==" | "=") => Ok(Operator::Equal),
            TokenKind::Symbol("!=") => Ok(Operator::NotEqual),
            TokenKind::Symbol("<") => Ok(Operator::Less),
            TokenKind::Symbol("<=") => Ok(Operator::LessOrEqual),
            TokenKind::Symbol(">") => Ok(Operator::Greater),
            TokenKind::Symbol(">=") => Ok(Operator::GreaterOrEqual),
            _ => Err(self.error_at(token, "`==`, `!=`, `<`, `<=`, `>` or `>=`")),
        }
    }

    fn check_literal(
        &self,
        token: &Token,
        property: Property,
        operator: Operator,
        value: &ClaimValue,
    ) -> Result<(), PolicyError> {
        let refused = match (property, value) {
            (Property::Type, ClaimValue::String(_)) => None,
            (Property::Type, _) => Some("a text"),
            (Property::Issuer, ClaimValue::String(name))
                if Issuer::ALL.iter().any(|issuer| issuer.name() == name) =>
            {
                None
            }
            (Property::Issuer, _) => Some(r#""AttestationService", "AttestationPolicy" or "CustomClaim""#),
            (Property::ValueType, ClaimValue::String(name))
                if ["Boolean", "Integer", "String"].contains(&name.as_str()) =>
            {
                None
            }
            (Property::ValueType, _) => Some(r#""Boolean", "Integer" or "String""#),
            (Property::Value, ClaimValue::Integer(_)) => None,
            (Property::Value, _) => operator.is_ordering().then_some("an integer"),
        };
        refused.map_or(Ok(()), |expected| Err(self.error_at(token, expected)))
    }

    fn expression(&mut self, scope: &mut Scope, used: Use, depth: usize) -> Result<Expression, PolicyError> {
        let token = self.advance();
        match &token.kind {
            TokenKind::Text(text) => Ok(Expression::Literal(ClaimValue::String(text.clone()))),
            TokenKind::Integer(value) => Ok(Expression::Literal(ClaimValue::Integer(*value))),
            TokenKind::Word(word) => match word.as_str() {
                "true" => Ok(Expression::Literal(ClaimValue::Boolean(true))),
                "false" => Ok(Expression::Literal(ClaimValue::Boolean(false))),
                _ if self.takes(".") => self.access(token, word, scope, used),
                _ if self.takes("(") => self.call(token, word, scope, depth),
                _ => Err(self.error_at(token, "a value, an identifier with a property, or a function")),
            },
            _ => Err(self.error_at(token, "a value, an identifier with a property, or a function")),
        }
    }

    fn access(
        &mut self,
        token: &Token,
        word: &str,
        scope: &mut Scope,
        used: Use,
    ) -> Result<Expression, PolicyError> {
        let condition = scope
            .resolve(word, used)
            .ok_or_else(|| self.error_at(token, "the identifier of an earlier condition of this rule"))?;
        Ok(Expression::Property { condition, property: self.property()? })
    }

    fn call(
        &mut self,
        token: &Token,
        word: &str,
        scope: &mut Scope,
        depth: usize,
    ) -> Result<Expression, PolicyError> {
        if self.version < Version::V1_2 {
            return Err(self.error_at(token, "no function before version 1.2"));
        }
        if depth == MAX_CALL_DEPTH {
            return Err(self.error_at(token, &format!("at most {MAX_CALL_DEPTH} nested calls")));
        }
        let known = Function::ALL.into_iter().find(|function| function.name() == word);
        let Some(function) = known else { return Err(self.unknown_function(token, word)) };
        let mut arguments = Vec::new();
        for index in 0..function.arity() {
            if index > 0 {
                self.require(",")?;
            }
            let used = if function.takes_set(index) { Use::Set } else { Use::Single };
            arguments.push(self.expression(scope, used, depth + 1)?);
        }
        self.require(")")?;
        Ok(Expression::Call { function, arguments })
    }

    fn unknown_function(&self, token: &Token, word: &str) -> PolicyError {
        let names: Vec<String> =
            Function::ALL.iter().map(|function| format!("`{}`", function.name())).collect();
        let expected = format!("one of the functions {}", names.join(", "));
        let found = match word {
            "JmesPath" | "JsonToClaimValue" => format!("`{word}`, which this service does not evaluate"),
            _ => format!("`{word}`"),
        };
        self.error_found(token, &expected, found)
    }

    fn action(&mut self, section: Section, scope: &mut Scope) -> Result<Action, PolicyError> {
        let expected = match section {
            Section::Configuration => "`issueproperty`",
            Section::Authorization => "`permit`, `deny` or `add`",
            Section::Issuance => "`add`, `issue` or `issueproperty`",
        };
        let token = self.peek();
        let word = self.require_word(expected)?;
        self.require("(")?;
        let action = match (section, word) {
            (Section::Authorization, "permit") => Action::Permit,
            (Section::Authorization, "deny") => Action::Deny,
            (Section::Authorization | Section::Issuance, "add") => {
                let (claim_type, value) = self.new_claim(scope)?;
                Action::Add { claim_type, value }
            }
            (Section::Issuance, "issue") => self.issue(scope)?,
            (Section::Configuration, "issueproperty") => {
                self.issue_property(&CONFIGURATION_PROPERTIES, scope)?
            }
            (Section::Issuance, "issueproperty") => self.issue_property(&ISSUANCE_PROPERTIES, scope)?,
            _ => return Err(self.error_at(token, expected)),
        };
        self.require(")")?;
        Ok(action)
    }

    fn issue(&mut self, scope: &mut Scope) -> Result<Action, PolicyError> {
        let is_claim = matches!(&self.peek().kind, TokenKind::Word(word) if word == "claim");
        if !is_claim {
            let (claim_type, value) = self.new_claim(scope)?;
            return Ok(Action::Issue { claim_type, value });
        }
        self.next += 1;
        self.require("=")?;
        let token = self.peek();
        let expected = "the identifier of a condition of this rule";
        let word = self.require_word(expected)?;
        let condition = scope.resolve(word, Use::Single).ok_or_else(|| self.error_at(token, expected))?;
        Ok(Action::IssueClaim { condition })
    }

    /// `type = expression, value = expression`, in either order.
    fn new_claim(&mut self, scope: &mut Scope) -> Result<(Expression, Expression), PolicyError> {
        let (mut claim_type, mut value) = (None, None);
        for index in 0..2 {
            if index > 0 {
                self.require(",")?;
            }
            let token = self.peek();
            let expected = if claim_type.is_some() { "`value`" } else { "`type`" };
            let slot = match self.require_word(expected)? {
                "type" if claim_type.is_none() => &mut claim_type,
                "value" if value.is_none() => &mut value,
                _ => return Err(self.error_at(token, expected)),
            };
            self.require("=")?;
            let token = self.peek();
            let expression = self.expression(scope, Use::Single, 0)?;
            *slot = Some((token, expression));
        }
        match (claim_type, value) {
            (Some((token, Expression::Literal(literal))), Some(_)) if literal.type_name() != "String" => {
                Err(self.error_at(token, "a text"))
            }
            (Some((_, claim_type)), Some((_, value))) => Ok((claim_type, value)),
            _ => Err(self.error("`type` and `value`")),
        }
    }

    fn issue_property(
        &mut self,
        known: &[(&'static str, &str)],
        scope: &mut Scope,
    ) -> Result<Action, PolicyError> {
        let token = self.peek();
        let (claim_type, value) = self.new_claim(scope)?;
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let found = known.iter().find(
            |(name, _)| matches!(&claim_type, Expression::Literal(ClaimValue::String(text)) if text == name),
        );
        let Some((name, value_type)) = found else {
            return Err(self.error_at(token, &format!("one of the properties {}", names.join(", "))));
        };
        if matches!(&value, Expression::Literal(literal) if literal.type_name() != *value_type) {
            return Err(self.error_at(token, &format!("a value of type {value_type} for {name}")));
        }
        Ok(Action::IssueProperty { name, value })
    }
}
