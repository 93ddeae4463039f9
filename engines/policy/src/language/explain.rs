//! Why a claim set was denied: claim, expected, actual, rule and line.

use super::Deny;
use super::ast::{Condition, Operator, Property, Rule, Term};
use super::evaluate::{Bindings, Run, satisfies};
use super::values::ClaimValue;

/// Most values of one claim type in a denial.
const MAX_VALUES: usize = 4;
/// Longest text of one value in a denial, in characters.
const MAX_SHOWN: usize = 200;

/// Whether a claim that satisfies the condition is what is wanted, or what is not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Satisfied,
    Unsatisfied,
}

impl Run {
    /// A rule with `deny()` whose conditions hold. The last condition is the one that is told: those before it say when
    /// the rule applies.
    pub(super) fn denied_by(&mut self, rule: &Rule, bindings: &Bindings) -> Deny {
        let (Some(condition), Some((last, context))) = (rule.conditions.last(), bindings.split_last()) else {
            return named(rule, "any", "another policy".to_owned(), "denied without a condition".to_owned());
        };
        let context = context.to_vec();
        let wanted = if condition.negated { Wanted::Satisfied } else { Wanted::Unsatisfied };
        let actual = match last.current.and_then(|index| self.claims.get(index)) {
            Some(claim) => shown(&claim.value),
            None => self.actual(condition, &context),
        };
        let expected = self.expected(condition, wanted, &context);
        let claim = self.subject(condition, &context);
        named(rule, &claim, expected, actual)
    }

    /// The first rule with `permit()`, whose conditions do not hold.
    pub(super) fn not_permitted_by(&mut self, rule: &Rule) -> Deny {
        let furthest = match self.combinations(rule) {
            Ok(combinations) => combinations.furthest,
            Err(reason) => return named(rule, "any", "a rule that can be evaluated".to_owned(), reason),
        };
        let Some(condition) = rule.conditions.get(furthest.len()) else {
            return named(rule, "any", "another policy".to_owned(), "permitted by no rule".to_owned());
        };
        let wanted = if condition.negated { Wanted::Unsatisfied } else { Wanted::Satisfied };
        let expected = self.expected(condition, wanted, &furthest);
        let actual = self.actual(condition, &furthest);
        let claim = self.subject(condition, &furthest);
        named(rule, &claim, expected, actual)
    }

    /// The claim type that a condition asks for.
    fn subject(&mut self, condition: &Condition, bindings: &Bindings) -> String {
        let term = condition.terms.iter().find(|term| is_subject(term));
        match term.map(|term| self.single(&term.operand, bindings)) {
            Some(Ok((ClaimValue::String(claim_type), _))) => claim_type,
            _ => "any".to_owned(),
        }
    }

    fn expected(&mut self, condition: &Condition, wanted: Wanted, bindings: &Bindings) -> String {
        let subject = self.subject(condition, bindings);
        let claim = self.claims.iter().find(|claim| claim.claim_type == subject).cloned();
        let mut parts = Vec::new();
        let mut failing = Vec::new();
        for term in condition.terms.iter().filter(|term| !is_subject(term)) {
            let operand = self.single(&term.operand, bindings).map(|(value, _)| value);
            let fails = match (&claim, &operand) {
                (Some(claim), Ok(operand)) => !satisfies(claim, term, operand),
                _ => true,
            };
            let shown = operand.map_or("another claim's value".to_owned(), |value| shown(&value));
            let name = if term.property == Property::Value { "" } else { term.property.name() };
            let part = format!("{name} {}{shown}", relation(term.operator, wanted)).trim_start().to_owned();
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

    /// The values of all claims of the type that the condition asks for.
    fn actual(&mut self, condition: &Condition, bindings: &Bindings) -> String {
        let subject = self.subject(condition, bindings);
        let claims = self.claims.iter().filter(|claim| claim.claim_type == subject);
        let values: Vec<String> = claims.map(|claim| shown(&claim.value)).take(MAX_VALUES).collect();
        if values.is_empty() { "missing".to_owned() } else { values.join(", ") }
    }
}

fn is_subject(term: &Term) -> bool {
    term.property == Property::Type && term.operator == Operator::Equal
}

fn named(rule: &Rule, claim: &str, expected: String, actual: String) -> Deny {
    Deny { rule: rule.text.clone(), line: rule.line, claim: claim.to_owned(), expected, actual }
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

fn shown(value: &ClaimValue) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
