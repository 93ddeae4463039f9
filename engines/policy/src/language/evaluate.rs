//! Evaluation of a policy: configuration rules run first, then authorization rules, then, if those permitted, issuance
//! rules. Claims that a rule adds are seen by the rules after it, in all later sections.

use super::ast::{Action, Policy, Rule};
use super::configuration::{Configuration, TokenProperties};
use super::run::{Fault, Run};
use super::values::Claim;
use super::{Decision, Deny, Permit};

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

impl Policy {
    /// Decides on a set of claims.
    pub fn evaluate(&self, incoming: Vec<Claim>) -> Result<Decision, EvaluationError> {
        let mut run = Run::new(self, incoming);
        self.configure(&mut run)?;
        let configuration = Configuration::of(&run.properties);
        let mut permitted = false;
        for rule in &self.authorization {
            match &rule.action {
                Action::Deny => {
                    if let Some(bindings) = run.first(rule).map_err(|reason| in_rule(rule, reason))? {
                        return Ok(Decision::Deny(run.explain().denied_by(rule, &bindings)));
                    }
                }
                // A second permit changes nothing, but its conditions are still carried out: a rule that cannot be
                // carried out is an error wherever it stands.
                Action::Permit => {
                    permitted |= run.first(rule).map_err(|reason| in_rule(rule, reason))?.is_some();
                }
                _ => run.apply(rule).map_err(|reason| in_rule(rule, reason))?,
            }
        }
        if !permitted {
            return Ok(Decision::Deny(self.not_permitted(&mut run)));
        }
        for rule in &self.issuance {
            run.apply(rule).map_err(|reason| in_rule(rule, reason))?;
        }
        let token_properties = TokenProperties::of(&run.properties);
        let Run { issued, properties, .. } = run;
        Ok(Decision::Permit(Permit { issued, properties, configuration, token_properties }))
    }

    /// What the configuration rules ask for on these claims, for a service that needs to know before it has verified
    /// all of the evidence. A later [`Policy::evaluate`] runs the same rules.
    pub fn configuration(&self, incoming: &[Claim]) -> Result<Configuration, EvaluationError> {
        if self.configuration.is_empty() {
            return Ok(Configuration::default());
        }
        let mut run = Run::new(self, incoming.to_vec());
        self.configure(&mut run)?;
        Ok(Configuration::of(&run.properties))
    }

    fn configure<'p>(&'p self, run: &mut Run<'p>) -> Result<(), EvaluationError> {
        self.configuration.iter().try_for_each(|rule| run.apply(rule).map_err(|reason| in_rule(rule, reason)))
    }

    fn not_permitted(&self, run: &mut Run<'_>) -> Deny {
        let rule = self.authorization.iter().find(|rule| rule.action == Action::Permit);
        match rule {
            Some(rule) => run.explain().not_permitted_by(rule),
            None => Deny {
                rule: "a claim set is denied unless a rule of authorizationrules permits it".to_owned(),
                line: 1,
                claim: "authorizationrules".to_owned(),
                expected: "a rule with permit()".to_owned(),
                actual: "missing".to_owned(),
                derived_from: Vec::new(),
            },
        }
    }
}

fn in_rule(rule: &Rule, reason: Fault) -> EvaluationError {
    EvaluationError { line: rule.line, rule: rule.text.clone(), reason }
}
