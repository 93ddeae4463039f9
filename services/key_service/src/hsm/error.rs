//! What can go wrong with a token, by what a caller or an operator would do about it.

use std::path::PathBuf;

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;

/// Why an HSM did not do what it was asked. No text holds a secret; the module's own words come through `source()`.
#[derive(Debug, thiserror::Error)]
pub enum HsmError {
    /// A key lives in a token, and no token is configured.
    #[error("this key lives in an HSM, and the configuration names none ([hsm])")]
    NotConfigured,
    /// The shared library.
    #[error("could not load the PKCS#11 module {path}")]
    Module {
        /// The library.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Error,
    },
    /// No slot holds the token.
    #[error("no slot of the PKCS#11 module holds a token with label or serial number {0:?}")]
    NoToken(String),
    /// More than one slot does.
    #[error("{count} tokens have the label or serial number {wanted:?}; name one by its serial number")]
    ManyTokens {
        /// What was looked for.
        wanted: String,
        /// How many there are.
        count: usize,
    },
    /// The file with the PIN.
    #[error(transparent)]
    Pin(#[from] super::pin::PinError),
    /// The token does not take the PIN. It is not tried again: a token locks itself after a few wrong ones.
    #[error("the token refused the PIN of `hsm.pin_file`; it is not tried again before a restart")]
    PinRefused,
    /// The token has no such mechanism, or not for this.
    #[error("the token does not offer {mechanism} for {purpose}")]
    Unsupported {
        /// PKCS#11 name.
        mechanism: String,
        /// What it was wanted for.
        purpose: &'static str,
    },
    /// There is no object with the id that the database refers to.
    #[error(
        "the token holds no key object with CKA_ID {0}; it was destroyed there, or this is another token"
    )]
    KeyMissing(String),
    /// More than one object has the id.
    #[error("the token holds {count} key objects with CKA_ID {id}; which of them is meant cannot be known")]
    KeyAmbiguous {
        /// The id.
        id: String,
        /// How many there are.
        count: usize,
    },
    /// The object is not as protected as this service made it.
    #[error("the key object with CKA_ID {0} is not private, sensitive and as extractable as its row says")]
    KeyUnprotected(String),
    /// The value does not fit the key, or does not decrypt.
    #[error("the value cannot be processed with this key and algorithm")]
    Value,
    /// The token did not answer in time.
    #[error("the HSM did not answer within {0} seconds")]
    NoAnswer(u64),
    /// Every session is in use and enough callers wait.
    #[error("the HSM has more work than it gets done")]
    Busy,
    /// Anything else.
    #[error("the HSM failed to {doing}")]
    Token {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: Error,
    },
    /// Something that the token answered cannot be read.
    #[error("the HSM answered with {0} that cannot be read")]
    Answer(&'static str),
}

impl HsmError {
    /// A missing mechanism.
    pub fn unsupported(mechanism: MechanismType, purpose: &'static str) -> Self {
        Self::Unsupported { mechanism: mechanism.to_string(), purpose }
    }

    /// The module's code, if it was the module that said no.
    pub fn code(&self) -> Option<RvError> {
        match self {
            Self::Token { source: Error::Pkcs11(code, _), .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same request may work later, when the token is back.
    pub fn is_unavailable(&self) -> bool {
        let down = matches!(self, Self::NoAnswer(_) | Self::Busy | Self::NoToken(_) | Self::PinRefused);
        down || self.lost_session()
    }

    /// Whether the session is gone, so that a new one may work.
    pub fn lost_session(&self) -> bool {
        matches!(
            self.code(),
            Some(
                RvError::SessionHandleInvalid
                    | RvError::SessionClosed
                    | RvError::DeviceRemoved
                    | RvError::DeviceError
                    | RvError::TokenNotPresent
                    | RvError::UserNotLoggedIn
                    | RvError::SlotIdInvalid
            )
        )
    }

    /// Whether the session is left as it was: a refusal that the service made itself, before asking the token.
    pub fn is_ours(&self) -> bool {
        self.code().is_none()
    }
}

/// Names what was being done when the module said no.
pub trait Doing<T> {
    /// See the trait.
    fn doing(self, doing: &'static str) -> Result<T, HsmError>;
}

impl<T> Doing<T> for Result<T, Error> {
    fn doing(self, doing: &'static str) -> Result<T, HsmError> {
        self.map_err(|source| HsmError::Token { doing, source })
    }
}
