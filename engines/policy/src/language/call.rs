//! What expressions stand for: one value, or a set of them, or none, and whether it may be issued.

use std::borrow::Cow;

use super::ast::{Expression, Function, Property};
use super::run::{Bindings, Fault, Run, property_of};
use super::values::{ClaimValue, shown};
use crate::query::{Json, Number, Query, compile, parse_json, search, to_text};

/// What an expression stands for.
pub(super) struct Evaluated<'a> {
    /// Usually one. An array that became claim values is a set; null is an empty one.
    pub values: Vec<Cow<'a, ClaimValue>>,
    /// Whether it was made of a read-only claim.
    pub read_only: bool,
}

impl<'a> Evaluated<'a> {
    fn one(value: ClaimValue, read_only: bool) -> Self {
        Self { values: vec![Cow::Owned(value)], read_only }
    }
}

impl Run<'_> {
    /// One value, and whether it comes from a read-only claim.
    pub(super) fn single<'a>(
        &'a self,
        expression: &'a Expression,
        bindings: &Bindings,
    ) -> Result<(Cow<'a, ClaimValue>, bool), Fault> {
        match expression {
            Expression::Literal(value) => {
                self.fuel.charge(1)?;
                Ok((Cow::Borrowed(value), false))
            }
            Expression::Property { condition, property } => {
                let (_, claim) = self.bound(*condition, bindings)?;
                self.fuel.charge(1 + claim.claim_type.len() as u64 / 64)?;
                Ok((property_of(claim, *property), claim.read_only))
            }
            _ => {
                let Evaluated { mut values, read_only } = self.value(expression, bindings)?;
                match (values.pop(), values.len()) {
                    (Some(value), 0) => Ok((value, read_only)),
                    (None, _) => Err("an empty value stands where one value is needed".to_owned()),
                    (Some(_), rest) => {
                        Err(format!("a set of {} values stands where one value is needed", rest + 1))
                    }
                }
            }
        }
    }

    /// Whatever an expression stands for in this combination of claims.
    pub(super) fn value<'a>(
        &'a self,
        expression: &'a Expression,
        bindings: &Bindings,
    ) -> Result<Evaluated<'a>, Fault> {
        match expression {
            Expression::Call { function, arguments } => self.call(*function, arguments, bindings),
            Expression::Document(_) | Expression::Query(_) => {
                Err("JSON and JMESPath stand only as arguments".to_owned())
            }
            Expression::Literal(_) | Expression::Property { .. } => {
                let (value, read_only) = self.single(expression, bindings)?;
                Ok(Evaluated { values: vec![value], read_only })
            }
        }
    }

    /// All values that an expression stands for, over all claims that matched.
    fn set<'a>(
        &'a self,
        expression: &'a Expression,
        bindings: &Bindings,
    ) -> Result<Vec<Cow<'a, ClaimValue>>, Fault> {
        let Expression::Property { condition, property } = expression else {
            return Ok(self.value(expression, bindings)?.values);
        };
        let all = bindings.get(*condition).and_then(|binding| binding.all.as_deref()).unwrap_or_default();
        let claims = all.iter().filter_map(|index| self.claims.get(*index));
        claims
            .map(|claim| {
                self.fuel.charge(claim.weight())?;
                Ok(property_of(claim, *property))
            })
            .collect()
    }

    fn call<'a>(
        &'a self,
        function: Function,
        arguments: &'a [Expression],
        bindings: &Bindings,
    ) -> Result<Evaluated<'a>, Fault> {
        self.fuel.charge(1)?;
        match (function, arguments) {
            (Function::JmesPath, [document, query]) => {
                let (result, read_only) = self.jmes_path(document, query, bindings)?;
                Ok(Evaluated::one(ClaimValue::String(to_text(&result, &self.fuel)?), read_only))
            }
            (Function::JsonToClaimValue, [document]) => {
                let (document, read_only) = self.document(document, bindings)?;
                Ok(Evaluated { values: self.claim_values(&document)?, read_only })
            }
            (Function::AppendString, [left, right]) => self.append(left, right, bindings),
            (Function::NegateBool, [argument]) => {
                let (value, read_only) = self.single(argument, bindings)?;
                match value.as_ref() {
                    ClaimValue::Boolean(value) => Ok(Evaluated::one(ClaimValue::Boolean(!value), read_only)),
                    other => Err(format!("NegateBool takes true or false, not {}", shown(other))),
                }
            }
            (Function::IsSubsetOf, [left, right]) => {
                let (left, right) = (self.set(left, bindings)?, self.set(right, bindings)?);
                let weight: u64 = left.iter().map(|value| value.weight()).sum();
                self.fuel.charge(weight.saturating_mul(right.len() as u64))?;
                let subset = left.iter().all(|value| right.contains(value));
                Ok(Evaluated::one(ClaimValue::Boolean(subset), false))
            }
            (Function::ContainsOnlyValue, [set, value]) => {
                let (set, (value, _)) = (self.set(set, bindings)?, self.single(value, bindings)?);
                self.fuel.charge(set.iter().map(|member| member.weight()).sum())?;
                let only = !set.is_empty() && set.iter().all(|member| *member == value);
                Ok(Evaluated::one(ClaimValue::Boolean(only), false))
            }
            _ => Err(format!("{} was called with {} arguments", function.name(), arguments.len())),
        }
    }

    fn append<'a>(
        &'a self,
        left: &'a Expression,
        right: &'a Expression,
        bindings: &Bindings,
    ) -> Result<Evaluated<'a>, Fault> {
        let (left, left_read_only) = self.single(left, bindings)?;
        let (right, right_read_only) = self.single(right, bindings)?;
        let (ClaimValue::String(first), ClaimValue::String(second)) = (left.as_ref(), right.as_ref()) else {
            return Err(format!("AppendString takes two texts, not {} and {}", shown(&left), shown(&right)));
        };
        self.fuel.charge(left.weight() + right.weight())?;
        Ok(Evaluated::one(ClaimValue::String(format!("{first}{second}")), left_read_only || right_read_only))
    }

    fn jmes_path(
        &self,
        document: &Expression,
        query: &Expression,
        bindings: &Bindings,
    ) -> Result<(Json, bool), Fault> {
        let (document, document_read_only) = self.document(document, bindings)?;
        let (query, query_read_only) = self.query(query, bindings)?;
        Ok((search(&query, &document, &self.fuel)?, document_read_only || query_read_only))
    }

    /// The JSON value of an argument. The JSON of a claim is read once, and the result of an inner `JmesPath` is taken
    /// as it is.
    fn document(&self, argument: &Expression, bindings: &Bindings) -> Result<(Json, bool), Fault> {
        match argument {
            Expression::Document(json) => Ok((json.clone(), false)),
            Expression::Call { function: Function::JmesPath, arguments } => match arguments.as_slice() {
                [document, query] => self.jmes_path(document, query, bindings),
                _ => Err("JmesPath takes two arguments".to_owned()),
            },
            Expression::Property { condition, property: Property::Value } => {
                let (index, claim) = self.bound(*condition, bindings)?;
                if let Some(known) = self.documents.borrow().get(&index) {
                    self.fuel.charge(1)?;
                    return Ok((known.clone(), claim.read_only));
                }
                let json = self.json(&claim.value)?;
                self.documents.borrow_mut().insert(index, json.clone());
                Ok((json, claim.read_only))
            }
            _ => {
                let (value, read_only) = self.single(argument, bindings)?;
                Ok((self.json(&value)?, read_only))
            }
        }
    }

    fn json(&self, value: &ClaimValue) -> Result<Json, Fault> {
        match value {
            ClaimValue::String(text) => parse_json(text, &self.fuel),
            other => Err(format!("a text that is JSON is needed, not {other}")),
        }
    }

    /// A query that is written out was read with the policy; others are read here.
    fn query<'a>(
        &self,
        argument: &'a Expression,
        bindings: &Bindings,
    ) -> Result<(Cow<'a, Query>, bool), Fault> {
        if let Expression::Query(query) = argument {
            return Ok((Cow::Borrowed(query), false));
        }
        let (value, read_only) = self.single(argument, bindings)?;
        let ClaimValue::String(text) = value.as_ref() else {
            return Err(format!("a text with a JMESPath expression is needed, not {value}"));
        };
        self.fuel.charge(text.len() as u64)?;
        let query = compile(text).map_err(|error| error.to_string())?;
        Ok((Cow::Owned(query), read_only))
    }

    fn claim_values<'a>(&self, json: &Json) -> Result<Vec<Cow<'a, ClaimValue>>, Fault> {
        let Json::Array(elements) = json else { return Ok(self.claim_value(json)?.into_iter().collect()) };
        let mut values = Vec::new();
        for element in elements.iter() {
            if matches!(element, Json::Array(_)) {
                return Err("JsonToClaimValue takes no array in an array".to_owned());
            }
            values.extend(self.claim_value(element)?);
        }
        Ok(values)
    }

    /// The claim value of a JSON value that is no array; none for null.
    fn claim_value<'a>(&self, json: &Json) -> Result<Option<Cow<'a, ClaimValue>>, Fault> {
        self.fuel.charge(1)?;
        let value = match json {
            Json::Null => return Ok(None),
            Json::Boolean(value) => ClaimValue::Boolean(*value),
            Json::Number(Number::Integer(value)) => ClaimValue::Integer(
                i64::try_from(*value)
                    .map_err(|_| format!("JsonToClaimValue takes integers of 64 bits, not {value}"))?,
            ),
            Json::Number(Number::Fraction(value)) => {
                return Err(format!("JsonToClaimValue takes no fraction, and this is {value}"));
            }
            Json::Text(text) => {
                self.fuel.charge_text(text)?;
                ClaimValue::from(&**text)
            }
            Json::Array(_) | Json::Object(_) => {
                return Err(format!("JsonToClaimValue takes no {}", json.type_name()));
            }
        };
        Ok(Some(Cow::Owned(value)))
    }
}
