//! Why a claim set was denied: claim, expected, actual, rule and line, and where a claim that the policy made comes
//! from.

use super::ast::{Action, Condition, Expression, Operator, Property, Rule, Term};
use super::run::{Bindings, Run, satisfies, sources};
use super::values::{ClaimValue, shown};
use super::{Deny, Derivation};

/// Most values of one claim type in a denial.
const MAX_VALUES: usize = 4;
/// Most rules between a claim and the evidence that a denial tells.
const MAX_DERIVATIONS: usize = 8;

/// Whether a claim that satisfies the condition is what is wanted, or what is not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Satisfied,
    Unsatisfied,
}

/// A denial while it is being told.
pub(super) struct Explanation<'r, 'p> {
    run: &'r Run<'p>,
    derivations: Vec<Derivation>,
}

impl<'r, 'p> Explanation<'r, 'p> {
    pub fn new(run: &'r Run<'p>) -> Self {
        Self { run, derivations: Vec::new() }
    }

    /// A rule with `deny()` whose conditions hold. The last condition is the one that is told: those before it say when
    /// the rule applies.
    pub fn denied_by(mut self, rule: &Rule, bindings: &Bindings) -> Deny {
        let (Some(condition), Some((last, context))) = (rule.conditions.last(), bindings.split_last()) else {
            return self.deny(
                rule,
                "any",
                "another policy".to_owned(),
                "denied without a condition".to_owned(),
            );
        };
        let context = context.to_vec();
        let wanted = if condition.negated { Wanted::Satisfied } else { Wanted::Unsatisfied };
        let actual = match last.current {
            Some(index) => self.found(&[index]),
            None => self.actual(condition, &context),
        };
        let expected = self.expected(condition, wanted, &context);
        let claim = self.subject(condition, &context).unwrap_or_else(|| match last.current {
            Some(index) => self.type_of(index),
            None => "any".to_owned(),
        });
        self.deny(rule, &claim, expected, actual)
    }

    /// The first rule with `permit()`, whose conditions do not hold.
    pub fn not_permitted_by(mut self, rule: &Rule) -> Deny {
        match self.unmet(rule) {
            Ok(Some((claim, expected, actual))) => self.deny(rule, &claim, expected, actual),
            Ok(None) => {
                self.deny(rule, "any", "another policy".to_owned(), "permitted by no rule".to_owned())
            }
            Err(reason) => self.deny(rule, "any", "a rule that can be evaluated".to_owned(), reason),
        }
    }

    /// The condition at which the best attempt at a rule failed: claim, expected and actual.
    fn unmet(&mut self, rule: &Rule) -> Result<Option<(String, String, String)>, String> {
        let furthest = self.run.furthest(rule)?;
        let Some(condition) = rule.conditions.get(furthest.len()) else { return Ok(None) };
        let wanted = if condition.negated { Wanted::Unsatisfied } else { Wanted::Satisfied };
        let expected = self.expected(condition, wanted, &furthest);
        let actual = self.actual(condition, &furthest);
        let claim = self.subject(condition, &furthest).unwrap_or_else(|| "any".to_owned());
        Ok(Some((claim, expected, actual)))
    }

    fn deny(self, rule: &Rule, claim: &str, expected: String, actual: String) -> Deny {
        Deny {
            rule: rule.text.clone(),
            line: rule.line,
            claim: claim.to_owned(),
            expected,
            actual,
            derived_from: self.derivations,
        }
    }

    /// The claim type that a condition asks for.
    fn subject(&self, condition: &Condition, bindings: &Bindings) -> Option<String> {
        let term = condition.terms.iter().find(|term| is_subject(term))?;
        match self.run.single(&term.operand, bindings).ok()?.0.as_ref() {
            ClaimValue::String(claim_type) => Some(claim_type.clone()),
            _ => None,
        }
    }

    fn type_of(&self, claim: usize) -> String {
        self.run.claims.get(claim).map_or_else(String::new, |claim| claim.claim_type.clone())
    }

    fn expected(&self, condition: &Condition, wanted: Wanted, bindings: &Bindings) -> String {
        let subject = self.subject(condition, bindings);
        let claim = self.run.claims.iter().find(|claim| Some(&claim.claim_type) == subject.as_ref());
        let mut parts = Vec::new();
        let mut failing = Vec::new();
        for term in condition.terms.iter().filter(|term| !is_subject(term)) {
            let operand = self.run.single(&term.operand, bindings).map(|(value, _)| value).ok();
            let fails = claim.is_none_or(|claim| !satisfies(claim, term, operand.as_deref()));
            let value = operand.map_or("another claim's value".to_owned(), |value| shown(&value));
            let value = format!("{value}{}", self.computation(&term.operand, bindings));
            let name = if term.property == Property::Value { "" } else { term.property.name() };
            let part = format!("{name} {}{value}", relation(term.operator, wanted)).trim_start().to_owned();
            if fails {
                failing.push(part.clone());
            }
            parts.push(part);
        }
        // Where one claim is there and something about it is wrong, only that is told.
        if wanted == Wanted::Satisfied && !failing.is_empty() {
            parts = failing;
        }
        match (parts.is_empty(), wanted) {
            (true, Wanted::Satisfied) => "present".to_owned(),
            (true, Wanted::Unsatisfied) => "not present".to_owned(),
            (false, Wanted::Satisfied) => parts.join(" and "),
            (false, Wanted::Unsatisfied) => parts.join(" or "),
        }
    }

    /// Which function an expected value was computed by, and of which claims.
    fn computation(&self, operand: &Expression, bindings: &Bindings) -> String {
        let Expression::Call { function, .. } = operand else { return String::new() };
        let mut conditions = Vec::new();
        properties(operand, &mut conditions);
        let claims = conditions.iter().filter_map(|condition| bindings.get(*condition)?.current);
        let mut types: Vec<String> = claims.map(|claim| self.type_of(claim)).collect();
        types.sort();
        types.dedup();
        let of = if types.is_empty() { String::new() } else { format!(" of {}", types.join(", ")) };
        format!(" ({}{of})", function.name())
    }

    /// The values of all claims of the type that the condition asks for, or why there are none.
    fn actual(&mut self, condition: &Condition, bindings: &Bindings) -> String {
        let Some(subject) = self.subject(condition, bindings) else {
            return "no claim that satisfies the condition".to_owned();
        };
        let claims = self.run.claims.iter().enumerate();
        let claims: Vec<usize> = claims
            .filter(|(_, claim)| claim.claim_type == subject)
            .map(|(index, _)| index)
            .take(MAX_VALUES)
            .collect();
        if claims.is_empty() { format!("missing{}", self.not_made(&subject)) } else { self.found(&claims) }
    }

    /// The values of claims, each with the rule that made it.
    fn found(&mut self, claims: &[usize]) -> String {
        let mut values = Vec::new();
        for index in claims {
            let Some(claim) = self.run.claims.get(*index) else { continue };
            let mut value = shown(&claim.value);
            if let Some(origin) = self.run.origin(*index) {
                let from = self.derive(*index);
                let of = if from.is_empty() { String::new() } else { format!(" of {}", from.join(", ")) };
                value = format!("{value} (made{of} by line {})", origin.rule.line);
            }
            values.push(value);
        }
        values.join(", ")
    }

    /// Records where a claim comes from, back to the evidence, and tells what it was made of.
    fn derive(&mut self, claim: usize) -> Vec<String> {
        let Some(origin) = self.run.origin(claim) else { return Vec::new() };
        let mut from: Vec<String> = origin.sources.iter().map(|source| self.type_of(*source)).collect();
        from.sort();
        from.dedup();
        // What is told already is not followed again: many claims can come the same way from many others.
        if self.record(self.type_of(claim), origin.rule, from.clone()) {
            for source in origin.sources.iter().take(MAX_VALUES) {
                self.derive(*source);
            }
        }
        from
    }

    /// Whether this is a step that has not been told yet and still finds a place.
    fn record(&mut self, claim: String, rule: &Rule, from: Vec<String>) -> bool {
        let derivation = Derivation { claim, rule: rule.text.clone(), line: rule.line, from };
        let is_new = self.derivations.len() < MAX_DERIVATIONS && !self.derivations.contains(&derivation);
        if is_new {
            self.derivations.push(derivation);
        }
        is_new
    }

    /// Why the policy did not make a claim that it has a rule for.
    fn not_made(&mut self, claim_type: &str) -> String {
        let policy = self.run.policy;
        let rule = policy.rules().find(|rule| {
            let made = rule.action.makes().map(|claim| &claim.claim_type);
            matches!(made, Some(Expression::Literal(ClaimValue::String(name))) if name == claim_type)
        });
        // Issuance rules have not run yet when a denial is told.
        let Some(rule) = rule.filter(|rule| !matches!(rule.action, Action::Issue(_))) else {
            return String::new();
        };
        let from =
            rule.conditions.iter().filter_map(|condition| self.subject(condition, &Vec::new())).collect();
        if !self.record(claim_type.to_owned(), rule, from) {
            return String::new();
        }
        match self.unmet(rule) {
            Ok(Some((claim, expected, actual))) => {
                format!("; line {} makes it, but {claim}: expected {expected}, found {actual}", rule.line)
            }
            Ok(None) => format!("; line {} made nothing: {}", rule.line, self.nothing(rule)),
            Err(_) => String::new(),
        }
    }

    fn nothing(&self, rule: &Rule) -> String {
        let bindings = self.run.first(rule).ok().flatten().unwrap_or_default();
        let types: Vec<String> =
            sources(rule, &bindings).into_iter().map(|source| self.type_of(source)).collect();
        format!("its value is empty on {}", types.join(", "))
    }
}

fn properties(expression: &Expression, conditions: &mut Vec<usize>) {
    match expression {
        Expression::Property { condition, .. } => conditions.push(*condition),
        Expression::Call { arguments, .. } => {
            arguments.iter().for_each(|argument| properties(argument, conditions));
        }
        Expression::Literal(_) | Expression::Document(_) | Expression::Query(_) => {}
    }
}

fn is_subject(term: &Term) -> bool {
    term.property == Property::Type && term.operator == Operator::Equal
}

fn relation(operator: Operator, wanted: Wanted) -> &'static str {
    match (operator, wanted) {
        (Operator::Equal, Wanted::Satisfied) | (Operator::NotEqual, Wanted::Unsatisfied) => "",
        (Operator::Equal, Wanted::Unsatisfied) | (Operator::NotEqual, Wanted::Satisfied) => "other than ",
        (Operator::Less, Wanted::Satisfied) | (Operator::GreaterOrEqual, Wanted::Unsatisfied) => "less than ",
        (Operator::LessOrEqual, Wanted::Satisfied) | (Operator::Greater, Wanted::Unsatisfied) => "at most ",
        (Operator::Greater, Wanted::Satisfied) | (Operator::LessOrEqual, Wanted::Unsatisfied) => "more than ",
        (Operator::GreaterOrEqual, Wanted::Satisfied) | (Operator::Less, Wanted::Unsatisfied) => "at least ",
    }
}
