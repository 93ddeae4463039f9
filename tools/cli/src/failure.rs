//! How a command fails: who can mend it, and how.

use std::fmt;
use std::process::ExitCode;

use public_api::client::ClientError;

use crate::printer::Printer;

/// Who can mend a failure; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The input or the surroundings: exit code 2.
    You,
    /// The platform refused for a reason of trust: exit code 3.
    Refused,
    /// Us: exit code 1.
    Us,
}

/// An error with a remedy.
#[derive(Debug)]
pub struct Failure {
    blame: Blame,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure that the user can mend, with the way to do it.
    pub fn you(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self { blame: Blame::You, message: message.into(), hint: Some(hint.into()) }.into()
    }

    /// A refusal.
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self { blame: Blame::Refused, message: message.into(), hint: Some(hint.into()) }.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints an error with its chain and hint; returns the exit code.
pub fn report(error: &anyhow::Error, printer: &Printer) -> ExitCode {
    printer.note(&format!("error: {error:#}"));
    if let Some(hint) = hint_of(error) {
        printer.note(&format!("hint: {hint}"));
    }
    match blame_of(error) {
        Blame::You => ExitCode::from(2),
        Blame::Refused => ExitCode::from(3),
        Blame::Us => ExitCode::from(1),
    }
}

fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.hint.clone();
        }
        match cause.downcast_ref::<ClientError>()? {
            ClientError::Denied { denial, .. } => Some(denial.remedy.clone()),
            ClientError::Transport { .. } => Some(
                "is the platform running? `casemate status` shows it, `casemate up` starts it".to_owned(),
            ),
            _ => None,
        }
    })
}

fn blame_of(error: &anyhow::Error) -> Blame {
    let blame = error.chain().find_map(|cause| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.blame);
        }
        match cause.downcast_ref::<ClientError>()? {
            ClientError::Denied { .. } => Some(Blame::Refused),
            ClientError::Status { status: 400..500, .. } => Some(Blame::You),
            _ => None,
        }
    });
    blame.unwrap_or(Blame::Us)
}
