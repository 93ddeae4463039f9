//! A refusal on its way to the answer and the log: a [`Denial`], boxed because it is six texts.

use public_api::Denial;

/// Why something is refused.
pub type Refusal = Box<Denial>;

/// A refusal from its parts: code, claim, expected, actual, rule, remedy.
pub fn refusal(
    code: &str,
    claim: impl Into<String>,
    expected: impl Into<String>,
    actual: impl Into<String>,
    rule: impl Into<String>,
    remedy: impl Into<String>,
) -> Refusal {
    Box::new(Denial::new(code, claim, expected, actual, rule, remedy))
}
