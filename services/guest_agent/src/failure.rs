//! How a command or a request fails: who can mend it, and how.

use std::error::Error;
use std::fmt;

use public_api::Denial;
use vtpm::command::CommandError;

/// Who can mend a failure; decides the exit code and the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The input or the surroundings.
    You,
    /// A service refused for a reason of trust.
    Refused,
    /// This program, the TPM, or a service that failed.
    Us,
}

impl Blame {
    /// The exit code: 2, 3 or 1.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::You => 2,
            Self::Refused => 3,
            Self::Us => 1,
        }
    }
}

/// An error with a remedy.
#[derive(Debug)]
pub struct Failure {
    blame: Blame,
    message: String,
    hint: Option<String>,
    denial: Option<Box<Denial>>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure that the user can mend, with the way to do it.
    pub fn you(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..Self::of(Blame::You, message) }
    }

    /// A failure that the user cannot mend.
    pub fn us(message: impl Into<String>) -> Self {
        Self::of(Blame::Us, message)
    }

    /// Something that must not be trusted, found by this program itself.
    pub fn untrusted(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..Self::of(Blame::Refused, message) }
    }

    /// A service's refusal.
    pub fn denied(service: &str, denial: Denial) -> Self {
        let message = format!("{service} refused: {denial}");
        Self {
            hint: Some(denial.remedy.clone()),
            denial: Some(Box::new(denial)),
            ..Self::of(Blame::Refused, message)
        }
    }

    /// What the TPM answered while something was done.
    pub fn tpm(doing: &str, error: CommandError) -> Self {
        Self::us(format!("the TPM, {doing}")).because(error)
    }

    fn of(blame: Blame, message: impl Into<String>) -> Self {
        Self { blame, message: message.into(), hint: None, denial: None, source: None }
    }

    /// With its cause.
    #[must_use]
    pub fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Who can mend it.
    pub const fn blame(&self) -> Blame {
        self.blame
    }

    /// What to do.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The five parts, when a service refused.
    pub fn denial(&self) -> Option<&Denial> {
        self.denial.as_deref()
    }

    /// The message and its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
