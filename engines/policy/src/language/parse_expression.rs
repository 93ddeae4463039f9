//! Expressions: values, properties of claims, function calls. JMESPath expressions and JSON that a policy writes out are
//! read here, once, so that a mistake in them has a place in the policy.

use super::ast::{Expression, Function, Version};
use super::lexer::{Token, TokenKind, place};
use super::parse::Cursor;
use super::parse_rule::{Scope, Use};
use super::values::ClaimValue;
use super::{MAX_CALL_DEPTH, PolicyError};
use crate::query::{compile, parse_json};

impl Cursor<'_> {
    pub(super) fn expression(
        &mut self,
        scope: &mut Scope,
        used: Use,
        depth: usize,
    ) -> Result<Expression, PolicyError> {
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
        let Some(function) = known else {
            let names: Vec<String> =
                Function::ALL.iter().map(|function| format!("`{}`", function.name())).collect();
            return Err(self.error_at(token, &format!("one of the functions {}", names.join(", "))));
        };
        let mut arguments = Vec::new();
        for index in 0..function.arity() {
            if index > 0 {
                self.require(",")?;
            }
            let used = if function.takes_set(index) { Use::Set } else { Use::Single };
            let token = self.peek();
            let argument = self.expression(scope, used, depth + 1)?;
            arguments.push(self.checked(function, index, argument, token)?);
        }
        self.require(")")?;
        Ok(Expression::Call { function, arguments })
    }

    /// What can be known of an argument without claims: its type where it is a literal, and what it says where it is
    /// JSON or JMESPath.
    fn checked(
        &self,
        function: Function,
        index: usize,
        argument: Expression,
        token: &Token,
    ) -> Result<Expression, PolicyError> {
        let Expression::Literal(value) = &argument else { return Ok(argument) };
        let expected = match (function, index, value) {
            (Function::JmesPath, 1, ClaimValue::String(text)) => {
                return compile(text)
                    .map(Expression::Query)
                    .map_err(|error| self.error_inside(token, error.offset, &error.expected, error.found));
            }
            (Function::JmesPath | Function::JsonToClaimValue, 0, ClaimValue::String(text)) => {
                return parse_json(text, &self.fuel)
                    .map(Expression::Document)
                    .map_err(|reason| self.error_found(token, "a text that is JSON", reason));
            }
            (Function::JmesPath, 1, _) => "a text with a JMESPath expression",
            (Function::JmesPath | Function::JsonToClaimValue, ..) => "a text that is JSON",
            (Function::AppendString, _, ClaimValue::Integer(_) | ClaimValue::Boolean(_)) => "a text",
            (Function::NegateBool, _, ClaimValue::Integer(_) | ClaimValue::String(_)) => "true or false",
            _ => return Ok(argument),
        };
        Err(self.error_at(token, expected))
    }

    /// An error at a byte of a text's value, which stands further right in the policy when there are escapes before it.
    fn error_inside(&self, token: &Token, offset: usize, expected: &str, found: String) -> PolicyError {
        let raw = self.source.get(token.span.clone()).unwrap_or_default();
        let mut left = offset;
        let mut position = token.span.start + 1;
        let mut characters = raw.chars().skip(1);
        while left > 0 {
            let Some(mut character) = characters.next() else { break };
            if character == '\\' {
                position += 1;
                character = characters.next().unwrap_or(character);
            }
            position += character.len_utf8();
            left = left.saturating_sub(character.len_utf8());
        }
        let (line, column) = place(self.source, position);
        PolicyError { line, column, expected: expected.to_owned(), found }
    }
}
