//! JMESPath over JSON for the attestation-policy language, with work that is charged and memory that follows from it.
//!
//! The crate `jmespath` reads expressions; their evaluation is ours, because one short expression can ask for a result
//! of any size (`[@,@][]` forty times). Source: the JMESPath specification (jmespath.org/specification.html), and
//! `equals_ignore_case`, which Azure Attestation's published policies use.
//!
//! Where the specification leaves a choice, this is what happens here:
//!
//! * A number without fraction is an integer, also when it is written `1.0`; integers are exact.
//! * Objects are in the order of their members' names, also for `keys`, `values` and `*`.
//! * An object that names a member twice is no JSON here, because readers differ on which one counts.
//! * `equals_ignore_case` is false unless both arguments are texts; letters of ASCII never equal others.
//! * Of equal elements `max_by` and `min_by` take the first; `sort_by` keeps their order.

mod compile;
mod function;
mod interpret;
mod json;

#[cfg(test)]
mod tests;

use std::cell::Cell;

pub(crate) use compile::{Query, compile};
pub(crate) use interpret::search;
pub(crate) use json::{Json, Number, parse_json, to_text};

/// Longest accepted expression, in bytes.
pub const MAX_QUERY_BYTES: usize = 8 * 1024;
/// Most characters of an expression that are neither letters, digits, `_` nor white space. Every operator is one, so this
/// bounds how deep the tree can be that the reader hands over.
pub const MAX_QUERY_SYMBOLS: usize = 512;
/// Most of the symbols `[`, `(`, `{`, `!`, `&` and `*` in an expression, in texts as well. Every level of the reader's
/// recursion consumes one, so this bounds its stack.
pub const MAX_QUERY_OPENINGS: usize = 192;
/// Deepest nesting of an expression.
pub const MAX_QUERY_DEPTH: usize = 128;
/// Longest JSON text that is read or made, in bytes.
pub const MAX_JSON_BYTES: usize = 1024 * 1024;

/// What went wrong, in words for the person who wrote the policy.
pub(crate) type Fault = String;

/// The steps that are left of one evaluation.
pub(crate) struct Fuel {
    limit: u64,
    left: Cell<u64>,
}

impl Fuel {
    pub fn new(limit: u64) -> Self {
        Self { limit, left: Cell::new(limit) }
    }

    pub fn charge(&self, steps: u64) -> Result<(), Fault> {
        match self.left.get().checked_sub(steps) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                Err(format!("evaluation takes more than {} steps", self.limit))
            }
        }
    }

    /// Charges for a text that is copied or compared.
    pub fn charge_text(&self, text: &str) -> Result<(), Fault> {
        self.charge(1 + text.len() as u64 / 64)
    }
}
