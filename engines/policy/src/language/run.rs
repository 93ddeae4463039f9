//! The state of one evaluation: which claims match a rule's conditions, and what its action does.
//!
//! Claims are found by the number of their type, so that a rule about one claim costs the same among ten claims as among
//! a thousand. Nothing of the policy is copied unless an action makes a claim of it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::MAX_WORK;
use super::ast::{Action, Condition, Expression, NewClaim, Operator, Policy, Property, Rule, Term, TypeId};
use super::explain::Explanation;
use super::values::{Claim, ClaimValue, Issuer, shown};
use crate::query::{Fuel, Json};

/// What went wrong inside a rule, before the rule is named.
pub(super) type Fault = crate::query::Fault;

/// The claims that matched the conditions of a rule so far, by condition.
pub(super) type Bindings = Vec<Binding>;

#[derive(Clone, Debug)]
pub(super) struct Binding {
    /// The claim of this combination; `None` for a condition that nothing matched and nothing should.
    pub current: Option<usize>,
    /// Every claim that matched, where the rule uses the set.
    pub all: Option<Rc<[usize]>>,
}

/// Where a claim that the policy made comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin<'p> {
    pub rule: &'p Rule,
    /// The claims that the rule made it of.
    pub sources: Vec<usize>,
}

/// The state of one evaluation.
pub(super) struct Run<'p> {
    pub policy: &'p Policy,
    pub claims: Vec<Claim>,
    /// For the claims after the incoming ones.
    origins: Vec<Origin<'p>>,
    /// The claims of each type that the policy names.
    by_type: Vec<Vec<usize>>,
    pub issued: Vec<Claim>,
    pub properties: Vec<Claim>,
    /// JSON values of claims that were asked for, so that each is read once.
    pub documents: RefCell<HashMap<usize, Json>>,
    pub fuel: Fuel,
}

/// What is looked for among the combinations of claims, and what was found.
struct Search {
    limit: usize,
    found: Vec<Bindings>,
    /// The longest list of conditions that held, where it is wanted.
    furthest: Option<Bindings>,
}

impl<'p> Run<'p> {
    pub fn new(policy: &'p Policy, incoming: Vec<Claim>) -> Self {
        let mut by_type = vec![Vec::new(); policy.types.len()];
        for (index, claim) in incoming.iter().enumerate() {
            let indexes = policy.types.get(&claim.claim_type).and_then(|id| by_type.get_mut(*id));
            indexes.into_iter().for_each(|indexes| indexes.push(index));
        }
        Self {
            policy,
            claims: incoming,
            origins: Vec::new(),
            by_type,
            issued: Vec::new(),
            properties: Vec::new(),
            documents: RefCell::default(),
            fuel: Fuel::new(MAX_WORK),
        }
    }

    /// Gets ready to say why. That has a budget of its own, so that a costly policy is explained as well as a cheap one.
    pub fn explain(&mut self) -> Explanation<'_, 'p> {
        self.fuel = Fuel::new(MAX_WORK);
        Explanation::new(self)
    }

    /// Where a claim comes from, if the policy made it.
    pub fn origin(&self, claim: usize) -> Option<&Origin<'p>> {
        claim.checked_sub(self.claims.len() - self.origins.len()).and_then(|made| self.origins.get(made))
    }

    /// Runs an action that makes claims, once for each combination on the claims as they are now.
    pub fn apply(&mut self, rule: &'p Rule) -> Result<(), Fault> {
        let combinations =
            self.search(rule, Search { limit: usize::MAX, found: Vec::new(), furthest: None })?;
        combinations.found.iter().try_for_each(|bindings| self.act(rule, bindings))
    }

    /// The first combination of claims that satisfies a rule's conditions.
    pub fn first(&self, rule: &Rule) -> Result<Option<Bindings>, Fault> {
        let search = self.search(rule, Search { limit: 1, found: Vec::new(), furthest: None })?;
        Ok(search.found.into_iter().next())
    }

    /// How far the best attempt at a rule's conditions got.
    pub fn furthest(&self, rule: &Rule) -> Result<Bindings, Fault> {
        let search = self.search(rule, Search { limit: 1, found: Vec::new(), furthest: Some(Vec::new()) })?;
        Ok(search.furthest.unwrap_or_default())
    }

    fn search(&self, rule: &Rule, mut search: Search) -> Result<Search, Fault> {
        let mut bindings = Vec::with_capacity(rule.conditions.len());
        self.extend(&rule.conditions, &mut bindings, &mut search)?;
        Ok(search)
    }

    fn extend(
        &self,
        conditions: &[Condition],
        bindings: &mut Bindings,
        search: &mut Search,
    ) -> Result<(), Fault> {
        self.fuel.charge(1)?;
        if let Some(furthest) = &mut search.furthest
            && bindings.len() > furthest.len()
        {
            furthest.clone_from(bindings);
        }
        let Some(condition) = conditions.get(bindings.len()) else {
            self.fuel.charge(bindings.len() as u64)?;
            search.found.push(bindings.clone());
            return Ok(());
        };
        let matching = self.matching(condition, bindings)?;
        if condition.negated != matching.is_empty() {
            return Ok(());
        }
        let all: Option<Rc<[usize]>> = condition.whole.then(|| Rc::from(matching.as_slice()));
        let count = if condition.multiplies { matching.len() } else { 1 };
        for index in 0..count {
            bindings.push(Binding { current: matching.get(index).copied(), all: all.clone() });
            self.extend(conditions, bindings, search)?;
            bindings.pop();
            if search.found.len() >= search.limit {
                break;
            }
        }
        Ok(())
    }

    /// The claims that satisfy a condition; only the first one where no more are needed.
    fn matching(&self, condition: &Condition, bindings: &Bindings) -> Result<Vec<usize>, Fault> {
        let operands = self.operands(condition, bindings)?;
        let (skipped, candidates) = match condition.subject {
            Some((term, id)) => (Some(term), self.by_type.get(id).map(Vec::as_slice).unwrap_or_default()),
            None => (None, [].as_slice()),
        };
        let everything = if skipped.is_none() { self.claims.len() } else { 0 };
        let only_first = !(condition.multiplies || condition.whole);
        let mut matching = Vec::new();
        for index in candidates.iter().copied().chain(0..everything) {
            let Some(claim) = self.claims.get(index) else { continue };
            self.fuel.charge(claim.weight())?;
            let satisfied = condition.terms.iter().enumerate().all(|(position, term)| {
                skipped == Some(position) || satisfies(claim, term, operand(term, &operands, position))
            });
            if satisfied {
                matching.push(index);
                if only_first {
                    break;
                }
            }
        }
        Ok(matching)
    }

    /// The values that a condition compares with, where they are not all written out. They are computed before any
    /// claim is looked at.
    fn operands<'a>(
        &'a self,
        condition: &'a Condition,
        bindings: &Bindings,
    ) -> Result<Vec<Cow<'a, ClaimValue>>, Fault> {
        if condition.terms.iter().all(|term| matches!(term.operand, Expression::Literal(_))) {
            return Ok(Vec::new());
        }
        condition.terms.iter().map(|term| Ok(self.single(&term.operand, bindings)?.0)).collect()
    }

    fn act(&mut self, rule: &'p Rule, bindings: &Bindings) -> Result<(), Fault> {
        match &rule.action {
            Action::Permit | Action::Deny => Ok(()),
            Action::Add(new) => self.make(rule, new, bindings, |_, _| Ok(())),
            Action::Issue(new) => self.make(rule, new, bindings, |run, claim| run.issue(claim.clone())),
            Action::IssueClaim { condition } => {
                let claim = self.bound(*condition, bindings)?.1.clone();
                self.fuel.charge(claim.weight())?;
                self.issue(claim)
            }
            Action::IssueProperty { property, claim: new } => self.make(rule, new, bindings, |run, claim| {
                if !property.accepts(&claim.value) {
                    return Err(format!("expected {}, not {}", property.expected(), shown(&claim.value)));
                }
                run.properties.push(claim.clone());
                Ok(())
            }),
        }
    }

    fn issue(&mut self, claim: Claim) -> Result<(), Fault> {
        if claim.read_only {
            return Err(format!("claim {:.200} is read-only and cannot be issued", claim.claim_type));
        }
        self.issued.push(claim);
        Ok(())
    }

    /// Adds the claims that an action makes: one for each value, none for an empty value.
    fn make(
        &mut self,
        rule: &'p Rule,
        new: &NewClaim,
        bindings: &Bindings,
        mut with: impl FnMut(&mut Self, &Claim) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let claims = self.new_claims(new, bindings)?;
        for claim in claims {
            with(self, &claim)?;
            let id = new.type_id.or_else(|| self.policy.types.get(&claim.claim_type).copied());
            let sources = sources(rule, bindings);
            self.fuel.charge(1 + sources.len() as u64)?;
            self.add(claim, id, Origin { rule, sources });
        }
        Ok(())
    }

    fn add(&mut self, claim: Claim, id: Option<TypeId>, origin: Origin<'p>) {
        if let Some(indexes) = id.and_then(|id| self.by_type.get_mut(id)) {
            indexes.push(self.claims.len());
        }
        self.claims.push(claim);
        self.origins.push(origin);
    }

    fn new_claims(&self, new: &NewClaim, bindings: &Bindings) -> Result<Vec<Claim>, Fault> {
        let (claim_type, type_read_only) = self.single(&new.claim_type, bindings)?;
        let ClaimValue::String(claim_type) = claim_type.as_ref() else {
            return Err(format!("a claim's type is a text, not {claim_type}"));
        };
        let value = self.value(&new.value, bindings)?;
        let read_only = value.read_only || type_read_only;
        let mut claims = Vec::new();
        for value in value.values {
            self.fuel.charge(1 + value.weight() + claim_type.len() as u64 / 64)?;
            claims.push(Claim {
                claim_type: claim_type.clone(),
                value: value.into_owned(),
                issuer: Issuer::AttestationPolicy,
                read_only,
            });
        }
        Ok(claims)
    }

    /// The claim of a condition in this combination, with its index.
    pub fn bound(&self, condition: usize, bindings: &Bindings) -> Result<(usize, &Claim), Fault> {
        let index = bindings.get(condition).and_then(|binding| binding.current);
        index
            .and_then(|index| Some((index, self.claims.get(index)?)))
            .ok_or_else(|| "an identifier stands for no claim".to_owned())
    }
}

/// The claims that an action used; where it used none, those that made it run.
pub(super) fn sources(rule: &Rule, bindings: &Bindings) -> Vec<usize> {
    let claims = |binding: &Binding| match &binding.all {
        Some(all) => all.to_vec(),
        None => binding.current.into_iter().collect(),
    };
    let used = rule.sources.iter().filter_map(|condition| bindings.get(*condition));
    let mut sources: Vec<usize> = if rule.sources.is_empty() {
        bindings.iter().flat_map(claims).collect()
    } else {
        used.flat_map(claims).collect()
    };
    sources.sort_unstable();
    sources.dedup();
    sources
}

/// The operand of a term: computed, or written out in the policy.
fn operand<'a>(
    term: &'a Term,
    computed: &'a [Cow<'_, ClaimValue>],
    position: usize,
) -> Option<&'a ClaimValue> {
    match (computed.get(position), &term.operand) {
        (Some(value), _) => Some(value),
        (None, Expression::Literal(value)) => Some(value),
        (None, _) => None,
    }
}

/// The value of a claim's property, borrowed where the claim has it.
pub(super) fn property_of(claim: &Claim, property: Property) -> Cow<'_, ClaimValue> {
    match property {
        Property::Type => Cow::Owned(ClaimValue::String(claim.claim_type.clone())),
        Property::Value => Cow::Borrowed(&claim.value),
        Property::ValueType => Cow::Owned(ClaimValue::from(claim.value.type_name())),
        Property::Issuer => Cow::Owned(ClaimValue::from(claim.issuer.name())),
    }
}

pub(super) fn satisfies(claim: &Claim, term: &Term, operand: Option<&ClaimValue>) -> bool {
    let Some(operand) = operand else { return false };
    let text = match term.property {
        Property::Value => return compare(&claim.value, term.operator, operand),
        Property::Type => claim.claim_type.as_str(),
        Property::ValueType => claim.value.type_name(),
        Property::Issuer => claim.issuer.name(),
    };
    let same = matches!(operand, ClaimValue::String(operand) if operand == text);
    same == (term.operator == Operator::Equal)
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
