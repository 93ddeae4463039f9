//! The attestation-policy language as its users see it: published policies, denials, bounds, and agreement with a second
//! evaluator.

mod bounds;
mod configuration;
mod denials;
mod functions;
mod generate;
mod naive;
mod published;
mod robust;

use policy::language::{Claim, Decision, Policy};

/// Parses a policy that is right.
fn parsed(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The decision in words: issued claims as `type=value` and properties as `(type=value)`, or the denial, or the error.
fn decision(text: &str, claims: Vec<Claim>) -> String {
    match parsed(text).evaluate(claims) {
        Ok(Decision::Permit(permit)) => {
            let issued = permit.issued().iter().map(|claim| format!("{}={}", claim.claim_type, claim.value));
            let properties = permit.properties().iter();
            let properties = properties.map(|claim| format!("({}={})", claim.claim_type, claim.value));
            let words: Vec<String> =
                std::iter::once("permit".to_owned()).chain(issued).chain(properties).collect();
            words.join("\n")
        }
        Ok(Decision::Deny(deny)) => format!("deny {deny}"),
        Err(error) => format!("error {error}"),
    }
}
