//! Evaluation with bounded work.
//!
//! Configuration rules run first, then authorization rules, then, if those permitted, issuance rules. Claims that a
//! rule adds are seen by the rules after it, in all later sections.

use std::rc::Rc;

use super::ast::{Action, Condition, Expression, Function, Operator, Policy, Property, Rule, Term};
use super::values::{Claim, ClaimValue, Issuer};
use super::{Decision, Deny, MAX_WORK, Permit};

/// A rule that cannot be carried out on these claims. The caller treats it as a denial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy line {line}: {reason} (rule: {rule})")]
pub struct EvaluationError {
    /// The line on which the rule begins.
    pub line: usize,
    /// The rule, as the policy writes it.
    pub rule: String,
    /// What went wrong.
    pub reason: String,
}

/// What went wrong inside a rule, before the rule is named.
pub(super) type Fault = String;

/// The claims that matched the conditions of a rule so far, by condition.
pub(super) type Bindings = Vec<Binding>;

#[derive(Clone, Debug)]
pub(super) struct Binding {
    /// The claim of this combination; `None` for a condition that nothing matched and nothing should.
    pub current: Option<usize>,
    /// Every claim that matched.
    pub all: Rc<[usize]>,
}

impl Policy {
    /// Decides on a set of claims.
    pub fn evaluate(&self, incoming: Vec<Claim>) -> Result<Decision, EvaluationError> {
        let mut run = Run { claims: incoming, issued: Vec::new(), properties: Vec::new(), work: 0 };
        for rule in &self.configuration {
            run.apply(rule).map_err(|reason| in_rule(rule, reason))?;
        }
        let mut permitted = false;
        for rule in &self.authorization {
            let combinations = run.combinations(rule).map_err(|reason| in_rule(rule, reason))?;
            match (&rule.action, combinations.found.first()) {
                (Action::Deny, Some(bindings)) => return Ok(Decision::Deny(run.denied_by(rule, bindings))),
                (Action::Permit, Some(_)) => permitted = true,
                (Action::Permit | Action::Deny, None) => {}
                _ => run.act_all(rule, &combinations.found).map_err(|reason| in_rule(rule, reason))?,
            }
        }
        if !permitted {
            return Ok(Decision::Deny(self.not_permitted(&mut run)));
        }
        for rule in &self.issuance {
            run.apply(rule).map_err(|reason| in_rule(rule, reason))?;
        }
        Ok(Decision::Permit(Permit { issued: run.issued, properties: run.properties }))
    }

    fn not_permitted(&self, run: &mut Run) -> Deny {
        let rule = self.authorization.iter().find(|rule| rule.action == Action::Permit);
        match rule {
            Some(rule) => run.not_permitted_by(rule),
            None => Deny {
                rule: "a claim set is denied unless a rule of authorizationrules permits it".to_owned(),
                line: 1,
                claim: "authorizationrules".to_owned(),
                expected: "a rule with permit()".to_owned(),
                actual: "missing".to_owned(),
            },
        }
    }
}

fn in_rule(rule: &Rule, reason: Fault) -> EvaluationError {
    EvaluationError { line: rule.line, rule: rule.text.clone(), reason }
}

/// Every way in which claims satisfy a rule's conditions, and how far the best attempt got if there is none.
pub(super) struct Combinations {
    pub found: Vec<Bindings>,
    pub furthest: Bindings,
}

/// The state of one evaluation.
pub(super) struct Run {
    pub claims: Vec<Claim>,
    issued: Vec<Claim>,
    properties: Vec<Claim>,
    work: u64,
}

impl Run {
    fn charge(&mut self, steps: u64) -> Result<(), Fault> {
        self.work = self.work.saturating_add(steps);
        if self.work > MAX_WORK {
            Err(format!("evaluation takes more than {MAX_WORK} steps"))
        } else {
            Ok(())
        }
    }

    fn apply(&mut self, rule: &Rule) -> Result<(), Fault> {
        let combinations = self.combinations(rule)?;
        self.act_all(rule, &combinations.found)
    }

    fn act_all(&mut self, rule: &Rule, combinations: &[Bindings]) -> Result<(), Fault> {
        combinations.iter().try_for_each(|bindings| self.act(&rule.action, bindings))
    }

    /// All combinations, on the claims as they are now.
    pub(super) fn combinations(&mut self, rule: &Rule) -> Result<Combinations, Fault> {
        let mut combinations = Combinations { found: Vec::new(), furthest: Vec::new() };
        self.extend(&rule.conditions, &mut Vec::new(), &mut combinations)?;
        Ok(combinations)
    }

    fn extend(
        &mut self,
        conditions: &[Condition],
        bindings: &mut Bindings,
        combinations: &mut Combinations,
    ) -> Result<(), Fault> {
        self.charge(1)?;
        if bindings.len() > combinations.furthest.len() {
            combinations.furthest.clone_from(bindings);
        }
        let Some(condition) = conditions.get(bindings.len()) else {
            combinations.found.push(bindings.clone());
            return Ok(());
        };
        let all: Rc<[usize]> = self.matching(condition, bindings)?.into();
        if condition.negated == all.is_empty() {
            let count = if condition.multiplies { all.len() } else { 1 };
            for index in 0..count.max(1) {
                bindings.push(Binding { current: all.get(index).copied(), all: Rc::clone(&all) });
                self.extend(conditions, bindings, combinations)?;
                bindings.pop();
            }
        }
        Ok(())
    }

    fn matching(&mut self, condition: &Condition, bindings: &Bindings) -> Result<Vec<usize>, Fault> {
        let mut operands = Vec::new();
        for term in &condition.terms {
            operands.push(self.single(&term.operand, bindings)?.0);
        }
        let mut matching = Vec::new();
        for (index, claim) in self.claims.iter().enumerate() {
            let terms = condition.terms.iter().zip(&operands);
            self.work = self.work.saturating_add(1);
            if terms.into_iter().all(|(term, operand)| satisfies(claim, term, operand)) {
                self.work = self.work.saturating_add(claim.value.weight());
                matching.push(index);
            }
        }
        self.charge(0)?;
        Ok(matching)
    }

    fn act(&mut self, action: &Action, bindings: &Bindings) -> Result<(), Fault> {
        match action {
            Action::Permit | Action::Deny => Ok(()),
            Action::Add { claim_type, value } => {
                let claim = self.new_claim(claim_type, value, bindings)?;
                self.claims.push(claim);
                Ok(())
            }
            Action::Issue { claim_type, value } => {
                let claim = self.new_claim(claim_type, value, bindings)?;
                self.claims.push(claim.clone());
                self.issue(claim)
            }
            Action::IssueClaim { condition } => {
                let claim = self.bound(*condition, bindings)?.clone();
                self.charge(claim.value.weight())?;
                self.issue(claim)
            }
            Action::IssueProperty { name, value } => {
                let name = Expression::Literal(ClaimValue::String((*name).to_owned()));
                let claim = self.new_claim(&name, value, bindings)?;
                self.claims.push(claim.clone());
                self.properties.push(claim);
                Ok(())
            }
        }
    }

    fn issue(&mut self, claim: Claim) -> Result<(), Fault> {
        if claim.read_only {
            return Err(format!("claim {} is read-only and cannot be issued", claim.claim_type));
        }
        self.issued.push(claim);
        Ok(())
    }

    fn new_claim(
        &mut self,
        claim_type: &Expression,
        value: &Expression,
        bindings: &Bindings,
    ) -> Result<Claim, Fault> {
        let (claim_type, _) = self.single(claim_type, bindings)?;
        let ClaimValue::String(claim_type) = claim_type else {
            return Err(format!("a claim's type is a text, not {claim_type}"));
        };
        let (value, read_only) = self.single(value, bindings)?;
        Ok(Claim { claim_type, value, issuer: Issuer::AttestationPolicy, read_only })
    }

    fn bound(&self, condition: usize, bindings: &Bindings) -> Result<&Claim, Fault> {
        let index = bindings.get(condition).and_then(|binding| binding.current);
        index
            .and_then(|index| self.claims.get(index))
            .ok_or_else(|| "an identifier stands for no claim".to_owned())
    }

    /// One value, and whether it comes from a read-only claim.
    pub(super) fn single(
        &mut self,
        expression: &Expression,
        bindings: &Bindings,
    ) -> Result<(ClaimValue, bool), Fault> {
        match expression {
            Expression::Literal(value) => {
                self.charge(value.weight())?;
                Ok((value.clone(), false))
            }
            Expression::Property { condition, property } => {
                let claim = self.bound(*condition, bindings)?;
                let (value, read_only) = (property_of(claim, *property), claim.read_only);
                self.charge(value.weight())?;
                Ok((value, read_only))
            }
            Expression::Call { function, arguments } => self.call(*function, arguments, bindings),
        }
    }

    /// All values that an expression stands for.
    fn set(&mut self, expression: &Expression, bindings: &Bindings) -> Result<Vec<ClaimValue>, Fault> {
        let Expression::Property { condition, property } = expression else {
            return Ok(vec![self.single(expression, bindings)?.0]);
        };
        let all = bindings.get(*condition).map(|binding| Rc::clone(&binding.all)).unwrap_or_default();
        let mut values = Vec::new();
        for claim in all.iter().filter_map(|index| self.claims.get(*index)) {
            values.push(property_of(claim, *property));
        }
        self.charge(values.iter().map(ClaimValue::weight).sum())?;
        Ok(values)
    }

    fn call(
        &mut self,
        function: Function,
        arguments: &[Expression],
        bindings: &Bindings,
    ) -> Result<(ClaimValue, bool), Fault> {
        match (function, arguments) {
            (Function::AppendString, [left, right]) => {
                let (left, left_read_only) = self.single(left, bindings)?;
                let (right, right_read_only) = self.single(right, bindings)?;
                let (ClaimValue::String(left), ClaimValue::String(right)) = (&left, &right) else {
                    return Err(format!("AppendString takes two texts, not {left} and {right}"));
                };
                Ok((ClaimValue::String(format!("{left}{right}")), left_read_only || right_read_only))
            }
            (Function::NegateBool, [argument]) => match self.single(argument, bindings)? {
                (ClaimValue::Boolean(value), read_only) => Ok((ClaimValue::Boolean(!value), read_only)),
                (other, _) => Err(format!("NegateBool takes true or false, not {other}")),
            },
            (Function::IsSubsetOf, [left, right]) => {
                let (left, right) = (self.set(left, bindings)?, self.set(right, bindings)?);
                self.charge((left.len() as u64).saturating_mul(right.len() as u64))?;
                Ok((ClaimValue::Boolean(left.iter().all(|value| right.contains(value))), false))
            }
            (Function::ContainsOnlyValue, [set, value]) => {
                let (set, (value, _)) = (self.set(set, bindings)?, self.single(value, bindings)?);
                let only = !set.is_empty() && set.iter().all(|member| *member == value);
                Ok((ClaimValue::Boolean(only), false))
            }
            _ => Err(format!("{} was called with {} arguments", function.name(), arguments.len())),
        }
    }
}

fn property_of(claim: &Claim, property: Property) -> ClaimValue {
    match property {
        Property::Type => ClaimValue::String(claim.claim_type.clone()),
        Property::Value => claim.value.clone(),
        Property::ValueType => ClaimValue::from(claim.value.type_name()),
        Property::Issuer => ClaimValue::from(claim.issuer.name()),
    }
}

pub(super) fn satisfies(claim: &Claim, term: &Term, operand: &ClaimValue) -> bool {
    match (term.property, operand) {
        (Property::Value, _) => compare(&claim.value, term.operator, operand),
        (Property::Type, ClaimValue::String(text)) => {
            (claim.claim_type == *text) == (term.operator == Operator::Equal)
        }
        _ => compare(&property_of(claim, term.property), term.operator, operand),
    }
}

fn compare(left: &ClaimValue, operator: Operator, right: &ClaimValue) -> bool {
    let (ClaimValue::Integer(left_number), ClaimValue::Integer(right_number)) = (left, right) else {
        return match operator {
            Operator::Equal => left == right,
            Operator::NotEqual => left != right,
            _ => false,
        };
    };
    match operator {
        Operator::Equal => left_number == right_number,
        Operator::NotEqual => left_number != right_number,
        Operator::Less => left_number < right_number,
        Operator::LessOrEqual => left_number <= right_number,
        Operator::Greater => left_number > right_number,
        Operator::GreaterOrEqual => left_number >= right_number,
    }
}
