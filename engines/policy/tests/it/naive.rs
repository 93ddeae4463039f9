//! A second evaluator, written from the documentation and as simple as can be: it reads the text character by character,
//! keeps every claim in one list, looks at all of them for each condition, and asks the crate `jmespath` to evaluate
//! expressions. It shares nothing with the engine.

use policy::language::{Claim, ClaimValue, Decision, EvaluationError, Policy};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::generate::choices;

#[derive(Clone, Debug, PartialEq)]
enum V {
    B(bool),
    I(i64),
    S(String),
}

#[derive(Clone, Debug, PartialEq)]
struct C {
    kind: String,
    value: V,
    issuer: &'static str,
    fixed: bool,
}

#[derive(Clone, Debug)]
enum E {
    Lit(V),
    Prop(String, String),
    Call(String, Vec<E>),
}

struct Cond {
    not: bool,
    name: Option<String>,
    terms: Vec<(String, String, E)>,
}

struct R {
    line: usize,
    conds: Vec<Cond>,
    action: String,
    args: Vec<(String, E)>,
}

/// Reads the text from left to right.
struct Text<'a> {
    rest: &'a str,
    line: usize,
}

impl Text<'_> {
    fn skip(&mut self) {
        while let Some(first) = self.rest.chars().next().filter(|first| first.is_whitespace()) {
            self.line += usize::from(first == '\n');
            self.rest = &self.rest[first.len_utf8()..];
        }
    }

    fn eat(&mut self, what: &str) -> bool {
        self.skip();
        let found = self.rest.starts_with(what);
        if found {
            self.rest = &self.rest[what.len()..];
        }
        found
    }

    fn must(&mut self, what: &str) {
        assert!(self.eat(what), "{what} is missing before {}", self.rest);
    }

    fn word(&mut self) -> String {
        self.skip();
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn string(&mut self) -> String {
        let mut value = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next().expect("a text ends") {
                '"' => break,
                '\\' => value.push(chars.next().expect("an escape ends")),
                other => value.push(other),
            }
        }
        self.rest = chars.as_str();
        value
    }

    fn expression(&mut self) -> E {
        if self.eat("\"") {
            return E::Lit(V::S(self.string()));
        }
        let word = self.word();
        match word.as_str() {
            "true" | "false" => return E::Lit(V::B(word == "true")),
            _ => {}
        }
        if let Ok(number) = word.parse() {
            return E::Lit(V::I(number));
        }
        if self.eat("(") {
            let mut args = vec![self.expression()];
            while self.eat(",") {
                args.push(self.expression());
            }
            self.must(")");
            return E::Call(word, args);
        }
        self.must(".");
        E::Prop(word, self.word())
    }

    fn condition(&mut self) -> Cond {
        let not = self.eat("!");
        let mut name = None;
        if !self.eat("[") {
            name = Some(self.word());
            self.must(":");
            self.must("[");
        }
        let mut terms = Vec::new();
        while !self.eat("]") {
            self.eat(",");
            let property = self.word();
            let operator =
                ["==", "!=", "<=", ">=", "<", ">", "="].into_iter().find(|o| self.eat(o)).expect("operator");
            terms.push((property, operator.replace("==", "="), self.expression()));
        }
        Cond { not, name, terms }
    }

    fn rules(&mut self) -> Vec<R> {
        self.must("{");
        let mut rules = Vec::new();
        while !self.eat("}") {
            self.skip();
            let line = self.line;
            let mut conds = Vec::new();
            while !self.eat("=>") {
                self.eat("&&");
                conds.push(self.condition());
            }
            let action = self.word();
            self.must("(");
            let mut args = Vec::new();
            while !self.eat(")") {
                self.eat(",");
                let name = self.word();
                self.must("=");
                let value = if name == "claim" {
                    E::Prop(self.word(), "claim".to_owned())
                } else {
                    self.expression()
                };
                args.push((name, value));
            }
            self.must(";");
            rules.push(R { line, conds, action, args });
        }
        self.must(";");
        rules
    }
}

/// Whether a name is used as one value: anywhere but as a set argument itself.
fn single(expression: &E, name: &str, as_set: bool) -> bool {
    match expression {
        E::Lit(_) => false,
        E::Prop(used, _) => used == name && !as_set,
        E::Call(function, args) => args.iter().enumerate().any(|(i, arg)| {
            let set = function == "IsSubsetOf" || (function == "ContainsOnlyValue" && i == 0);
            single(arg, name, set)
        }),
    }
}

/// What the names of a rule stand for: the claim of this round, and all that matched.
type Names = Vec<(String, C, Vec<C>)>;

#[derive(Debug)]
enum Stop {
    Error,
    TooMuch,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Permit(Vec<(String, V)>),
    Denied(usize),
    NotPermitted,
    Error(usize),
}

#[derive(Default)]
struct Engine {
    claims: Vec<C>,
    issued: Vec<(String, V)>,
    steps: usize,
}

impl Engine {
    fn prop(claim: &C, property: &str) -> V {
        match property {
            "type" => V::S(claim.kind.clone()),
            "issuer" => V::S(claim.issuer.to_owned()),
            "valueType" => V::S(
                match claim.value {
                    V::B(_) => "Boolean",
                    V::I(_) => "Integer",
                    V::S(_) => "String",
                }
                .to_owned(),
            ),
            _ => claim.value.clone(),
        }
    }

    fn set(expression: &E, names: &Names) -> Result<Vec<V>, Stop> {
        if let E::Prop(name, property) = expression {
            let (_, _, all) = names.iter().find(|(known, ..)| known == name).expect("declared");
            return Ok(all.iter().map(|claim| Self::prop(claim, property)).collect());
        }
        Ok(Self::values(expression, names)?.0)
    }

    fn one(expression: &E, names: &Names) -> Result<(V, bool), Stop> {
        let (mut values, fixed) = Self::values(expression, names)?;
        if values.len() == 1 { Ok((values.remove(0), fixed)) } else { Err(Stop::Error) }
    }

    fn text(expression: &E, names: &Names) -> Result<(String, bool), Stop> {
        match Self::one(expression, names)? {
            (V::S(text), fixed) => Ok((text, fixed)),
            _ => Err(Stop::Error),
        }
    }

    fn values(expression: &E, names: &Names) -> Result<(Vec<V>, bool), Stop> {
        let (function, args) = match expression {
            E::Lit(value) => return Ok((vec![value.clone()], false)),
            E::Prop(name, property) => {
                let (_, claim, _) = names.iter().find(|(known, ..)| known == name).expect("declared");
                return Ok((vec![Self::prop(claim, property)], claim.fixed));
            }
            E::Call(function, args) => (function.as_str(), args),
        };
        Ok(match function {
            "AppendString" => {
                let (left, l) = Self::text(&args[0], names)?;
                let (right, r) = Self::text(&args[1], names)?;
                (vec![V::S(left + &right)], l || r)
            }
            "NegateBool" => match Self::one(&args[0], names)? {
                (V::B(value), fixed) => (vec![V::B(!value)], fixed),
                _ => return Err(Stop::Error),
            },
            "IsSubsetOf" => {
                let (left, right) = (Self::set(&args[0], names)?, Self::set(&args[1], names)?);
                (vec![V::B(!left.iter().any(|value| !right.contains(value)))], false)
            }
            "ContainsOnlyValue" => {
                let set = Self::set(&args[0], names)?;
                let (only, _) = Self::one(&args[1], names)?;
                (vec![V::B(!set.is_empty() && !set.iter().any(|value| *value != only))], false)
            }
            "JmesPath" => {
                let (json, l) = Self::text(&args[0], names)?;
                let (query, r) = Self::text(&args[1], names)?;
                (vec![V::S(jmes_path(&json, &query)?)], l || r)
            }
            _ => {
                let (json, fixed) = Self::text(&args[0], names)?;
                (claim_values(&json)?, fixed)
            }
        })
    }

    fn holds(left: &V, operator: &str, right: &V) -> bool {
        match (operator, left, right) {
            ("=", ..) => left == right,
            ("!=", ..) => left != right,
            (_, V::I(left), V::I(right)) => match operator {
                "<" => left < right,
                "<=" => left <= right,
                ">" => left > right,
                _ => left >= right,
            },
            _ => false,
        }
    }

    /// All rounds of a rule, in order; one is enough for `permit` and `deny`.
    fn rounds(&mut self, rule: &R, names: &Names, done: usize, found: &mut Vec<Names>) -> Result<(), Stop> {
        self.steps += self.claims.len() + 1;
        if self.steps > 20_000 {
            return Err(Stop::TooMuch);
        }
        let Some(cond) = rule.conds.get(done) else {
            found.push(names.clone());
            return Ok(());
        };
        let mut wanted = Vec::new();
        for (property, operator, operand) in &cond.terms {
            wanted.push((property, operator, Self::one(operand, names)?.0));
        }
        let matching: Vec<C> = self
            .claims
            .iter()
            .filter(|claim| wanted.iter().all(|(p, o, value)| Self::holds(&Self::prop(claim, p), o, value)))
            .cloned()
            .collect();
        if cond.not {
            return if matching.is_empty() { self.rounds(rule, names, done + 1, found) } else { Ok(()) };
        }
        let used = cond.name.as_deref().is_some_and(|name| {
            let later = rule.conds.iter().flat_map(|cond| cond.terms.iter().map(|(_, _, operand)| operand));
            later.chain(rule.args.iter().map(|(_, value)| value)).any(|value| single(value, name, false))
        });
        let count = if used { matching.len() } else { matching.len().min(1) };
        for claim in &matching[..count] {
            let mut names = names.clone();
            names.push((cond.name.clone().unwrap_or_default(), claim.clone(), matching.clone()));
            self.rounds(rule, &names, done + 1, found)?;
            if !found.is_empty() && ["permit", "deny"].contains(&rule.action.as_str()) {
                break;
            }
        }
        Ok(())
    }

    fn act(&mut self, rule: &R, names: &Names) -> Result<(), Stop> {
        let arg = |name: &str| rule.args.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        if let Some(E::Prop(name, _)) = arg("claim") {
            let (_, claim, _) = names.iter().find(|(known, ..)| known == name).expect("declared");
            if claim.fixed {
                return Err(Stop::Error);
            }
            self.issued.push((claim.kind.clone(), claim.value.clone()));
            return Ok(());
        }
        let (kind, kind_fixed) = Self::text(arg("type").expect("type"), names)?;
        let (values, fixed) = Self::values(arg("value").expect("value"), names)?;
        let fixed = fixed || kind_fixed;
        for value in values {
            if rule.action == "issue" {
                if fixed {
                    return Err(Stop::Error);
                }
                self.issued.push((kind.clone(), value.clone()));
            }
            self.claims.push(C { kind: kind.clone(), value, issuer: "AttestationPolicy", fixed });
        }
        Ok(())
    }

    fn run(&mut self, text: &str) -> Option<Outcome> {
        let mut text = Text { rest: text, line: 1 };
        text.must("version=1.2;");
        text.must("authorizationrules");
        let authorizing = text.rules();
        text.must("issuancerules");
        let issuing = text.rules();
        let mut permitted = false;
        for (rule, authorizes) in
            authorizing.iter().map(|rule| (rule, true)).chain(issuing.iter().map(|rule| (rule, false)))
        {
            if !authorizes && !permitted {
                return Some(Outcome::NotPermitted);
            }
            let mut found = Vec::new();
            let mut result = self.rounds(rule, &Vec::new(), 0, &mut found);
            if result.is_ok() && !found.is_empty() {
                match rule.action.as_str() {
                    "permit" => permitted = true,
                    "deny" => return Some(Outcome::Denied(rule.line)),
                    _ => result = found.iter().try_for_each(|names| self.act(rule, names)),
                }
            }
            match result {
                Ok(()) => {}
                Err(Stop::Error) => return Some(Outcome::Error(rule.line)),
                Err(Stop::TooMuch) => return None,
            }
        }
        Some(if permitted {
            Outcome::Permit(std::mem::take(&mut self.issued))
        } else {
            Outcome::NotPermitted
        })
    }
}

fn jmes_path(json: &str, query: &str) -> Result<String, Stop> {
    let json: serde_json::Value = serde_json::from_str(json).map_err(|_| Stop::Error)?;
    let mut runtime = jmespath::Runtime::new();
    runtime.register_builtin_functions();
    runtime.register_function(
        "equals_ignore_case",
        Box::new(|args: &[jmespath::Rcvar], _: &mut jmespath::Context<'_>| {
            let same = match (args[0].as_string(), args[1].as_string()) {
                (Some(left), Some(right)) => left.eq_ignore_ascii_case(right),
                _ => false,
            };
            Ok(jmespath::Rcvar::new(jmespath::Variable::Bool(same)))
        }),
    );
    let expression = runtime.compile(query).map_err(|_| Stop::Error)?;
    let found = expression.search(json).map_err(|_| Stop::Error)?;
    serde_json::to_string(&*found).map_err(|_| Stop::Error)
}

fn claim_values(json: &str) -> Result<Vec<V>, Stop> {
    use serde_json::Value;
    let convert = |value: &Value| match value {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(V::B(*value))),
        Value::Number(number) => number.as_i64().map(V::I).ok_or(Stop::Error).map(Some),
        Value::String(text) => Ok(Some(V::S(text.clone()))),
        Value::Array(_) | Value::Object(_) => Err(Stop::Error),
    };
    let values = match serde_json::from_str(json).map_err(|_| Stop::Error)? {
        Value::Array(elements) => elements,
        other => vec![other],
    };
    let values: Result<Vec<Option<V>>, Stop> = values.iter().map(convert).collect();
    Ok(values?.into_iter().flatten().collect())
}

fn value(value: &ClaimValue) -> V {
    match value {
        ClaimValue::Boolean(value) => V::B(*value),
        ClaimValue::Integer(value) => V::I(*value),
        ClaimValue::String(value) => V::S(value.clone()),
    }
}

fn naively(text: &str, claims: &[Claim]) -> Option<Outcome> {
    let claims = claims
        .iter()
        .map(|claim| C {
            kind: claim.claim_type.clone(),
            value: value(&claim.value),
            issuer: claim.issuer.name(),
            fixed: claim.read_only,
        })
        .collect();
    Engine { claims, ..Engine::default() }.run(text)
}

fn outcome(decision: &Result<Decision, EvaluationError>, text: &str) -> Outcome {
    match decision {
        Ok(Decision::Permit(permit)) => Outcome::Permit(
            permit.issued().iter().map(|claim| (claim.claim_type.clone(), value(&claim.value))).collect(),
        ),
        Ok(Decision::Deny(deny)) => {
            let rule = text.lines().nth(deny.line - 1).unwrap_or_default();
            if rule.contains("deny()") { Outcome::Denied(deny.line) } else { Outcome::NotPermitted }
        }
        Err(error) => Outcome::Error(error.line),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn both_evaluators_agree(mut choices in choices()) {
        let text = choices.policy();
        let claims = choices.claims();
        let policy = Policy::parse(&text).map_err(|error| TestCaseError::fail(format!("{error}")))?;
        // The second evaluator has no idea of a bound that is worth comparing; what is too much for it is left out.
        if let Some(expected) = naively(&text, &claims) {
            let decision = policy.evaluate(claims.clone());
            prop_assert_eq!(outcome(&decision, &text), expected, "{:?}\n{:?}", claims, decision);
        }
    }
}

/// The comparison means something only if all outcomes are frequent among the generated policies.
#[test]
fn generated_policies_have_all_outcomes() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut permitted, mut issued, mut denied, mut failed, mut left_out) = (0, 0, 0, 0, 0);
    for _ in 0..1000 {
        let mut choices = choices().new_tree(&mut runner).expect("choices").current();
        let text = choices.policy();
        match naively(&text, &choices.claims()) {
            Some(Outcome::Permit(claims)) if claims.is_empty() => permitted += 1,
            Some(Outcome::Permit(_)) => issued += 1,
            Some(Outcome::Denied(_) | Outcome::NotPermitted) => denied += 1,
            Some(Outcome::Error(_)) => failed += 1,
            None => left_out += 1,
        }
    }
    assert!(
        permitted > 50 && issued > 50 && denied > 50 && failed > 50,
        "{permitted} {issued} {denied} {failed}"
    );
    assert!(left_out < 100, "{left_out}");
}
