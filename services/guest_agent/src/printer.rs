//! Where each line goes: data to standard output, everything else to standard error.

use std::io::Write as _;

use serde_json::Value;

use crate::failure::Failure;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// JSON, for programs.
    Json,
    /// Names and values, for people.
    Table,
}

impl Format {
    /// The result: JSON, or the pairs, one a line.
    pub fn facts(self, value: &Value, facts: &[(&str, String)]) {
        match self {
            Self::Json => data(&format!("{value:#}")),
            Self::Table => {
                let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                facts.iter().for_each(|(name, fact)| data(&format!("{name:width$}  {fact}")));
            }
        }
    }

    /// The result: JSON, or one text that a pipe can take.
    pub fn text(self, value: &Value, text: &str) {
        match self {
            Self::Json => data(&format!("{value:#}")),
            Self::Table => data(text.trim_end()),
        }
    }
}

fn data(text: &str) {
    // A reader that went away (`| head`) is not an error of ours.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a failure and its hint on standard error.
pub fn failed(failure: &Failure) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "error: {}", failure.chain());
    if let Some(hint) = failure.hint() {
        let _ = writeln!(stderr, "hint: {hint}");
    }
}
