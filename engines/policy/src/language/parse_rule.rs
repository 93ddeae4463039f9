//! One rule: conditions and action. Names are resolved here; what is unknown does not get through.

use super::ast::{Action, Condition, Expression, NewClaim, Operator, Property, Rule, Term, Version};
use super::configuration::KnownProperty;
use super::lexer::{Token, TokenKind};
use super::parse::{Cursor, Section};
use super::values::{ClaimValue, Issuer};
use super::{MAX_CONDITIONS, PolicyError};

/// How an identifier was used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Single,
    Set,
}

/// What is known while a rule is read.
#[derive(Default)]
pub(super) struct Scope {
    /// The identifier of each condition so far.
    identifiers: Vec<Option<String>>,
    /// Conditions whose identifier is used, and how.
    uses: Vec<(usize, Use)>,
}

impl Scope {
    pub fn resolve(&mut self, word: &str, used: Use) -> Option<usize> {
        let index = self.identifiers.iter().position(|known| known.as_deref() == Some(word))?;
        self.uses.push((index, used));
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
        let before_action = scope.uses.len();
        let action = self.action(section, &mut scope)?;
        let end = self.previous_end();
        // Published policies leave out the `;` of a rule. Nothing else can follow an action's `)`.
        self.takes(";");
        let sources = scope.uses.iter().skip(before_action).map(|(index, _)| *index).collect();
        mark_uses(&mut conditions, &scope.uses);
        let text = self.source.get(start..end).unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Rule { line: self.line(start), text, conditions, action, sources })
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
        let subject = self.subject(&terms);
        Ok(Condition { negated, terms, multiplies: false, whole: false, subject })
    }

    fn subject(&mut self, terms: &[Term]) -> Option<(usize, usize)> {
        terms.iter().enumerate().find_map(|(index, term)| {
            match (term.property, term.operator, &term.operand) {
                (Property::Type, Operator::Equal, Expression::Literal(ClaimValue::String(name))) => {
                    Some((index, self.type_id(name)))
                }
                _ => None,
            }
        })
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

    pub(super) fn property(&mut self) -> Result<Property, PolicyError> {
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

    fn action(&mut self, section: Section, scope: &mut Scope) -> Result<Action, PolicyError> {
        let expected = match section {
            Section::Configuration => "`issueproperty`",
            Section::Authorization => "`permit`, `deny`, `add` or `issue`",
            Section::Issuance => "`add`, `issue` or `issueproperty`",
        };
        let token = self.peek();
        let word = self.require_word(expected)?;
        self.require("(")?;
        let action = match (section, word) {
            (Section::Authorization, "permit") => Action::Permit,
            (Section::Authorization, "deny") => Action::Deny,
            (Section::Authorization | Section::Issuance, "add") => Action::Add(self.new_claim(scope)?.1),
            // A published policy issues here, and the grammar says that nothing comes into the token from here.
            (Section::Authorization, "issue") => Action::Add(self.new_claim(scope)?.1),
            (Section::Issuance, "issue") => self.issue(scope)?,
            (Section::Configuration, "issueproperty") => {
                self.issue_property(&KnownProperty::CONFIGURATION, scope)?
            }
            (Section::Issuance, "issueproperty") => self.issue_property(&KnownProperty::ISSUANCE, scope)?,
            _ => return Err(self.error_at(token, expected)),
        };
        self.require(")")?;
        Ok(action)
    }

    fn issue(&mut self, scope: &mut Scope) -> Result<Action, PolicyError> {
        let is_claim = matches!(&self.peek().kind, TokenKind::Word(word) if word == "claim");
        if !is_claim {
            return Ok(Action::Issue(self.new_claim(scope)?.1));
        }
        self.next += 1;
        self.require("=")?;
        let token = self.peek();
        let expected = "the identifier of a condition of this rule";
        let word = self.require_word(expected)?;
        let condition = scope.resolve(word, Use::Single).ok_or_else(|| self.error_at(token, expected))?;
        Ok(Action::IssueClaim { condition })
    }

    /// `type = expression, value = expression`, in either order, with the places of the two expressions. A text that
    /// stands first without a name is the type, as in a published policy.
    fn new_claim(&mut self, scope: &mut Scope) -> Result<([Token; 2], NewClaim), PolicyError> {
        let (mut claim_type, mut value) = (None, None);
        let mut is_first = true;
        if let TokenKind::Text(text) = &self.peek().kind {
            let token = self.advance().clone();
            claim_type = Some((token, Expression::Literal(ClaimValue::String(text.clone()))));
            is_first = false;
        }
        while claim_type.is_none() || value.is_none() {
            if !is_first {
                self.require(",")?;
            }
            is_first = false;
            let token = self.peek();
            let expected = if claim_type.is_some() { "`value`" } else { "`type`" };
            let slot = match self.require_word(expected)? {
                "type" if claim_type.is_none() => &mut claim_type,
                "value" if value.is_none() => &mut value,
                _ => return Err(self.error_at(token, expected)),
            };
            self.require("=")?;
            let token = self.peek().clone();
            let expression = self.expression(scope, Use::Single, 0)?;
            *slot = Some((token, expression));
        }
        let (Some((type_token, claim_type)), Some((value_token, value))) = (claim_type, value) else {
            return Err(self.error("`type` and `value`"));
        };
        let type_id = match &claim_type {
            Expression::Literal(ClaimValue::String(text)) => Some(self.type_id(text)),
            Expression::Literal(_) => return Err(self.error_at(&type_token, "a text")),
            _ => None,
        };
        Ok(([type_token, value_token], NewClaim { claim_type, type_id, value }))
    }

    fn issue_property(&mut self, known: &[KnownProperty], scope: &mut Scope) -> Result<Action, PolicyError> {
        let ([type_token, value_token], claim) = self.new_claim(scope)?;
        let found = known.iter().find(|property| {
            matches!(&claim.claim_type, Expression::Literal(ClaimValue::String(text)) if text == property.name())
        });
        let Some(property) = found else {
            let names: Vec<&str> = known.iter().map(|property| property.name()).collect();
            let expected = format!("one of the properties {}", names.join(", "));
            return Err(self.error_at(&type_token, &expected));
        };
        if matches!(&claim.value, Expression::Literal(value) if !property.accepts(value)) {
            return Err(self.error_at(&value_token, &property.expected()));
        }
        Ok(Action::IssueProperty { property: *property, claim })
    }
}

fn mark_uses(conditions: &mut [Condition], uses: &[(usize, Use)]) {
    for (index, used) in uses {
        if let Some(condition) = conditions.get_mut(*index) {
            match used {
                Use::Single => condition.multiplies = true,
                Use::Set => condition.whole = true,
            }
        }
    }
}
