//! How a request can end other than well.

use super::reset::ResetRefused;
use crate::crypto::error::CryptoError;
use crate::crypto::seal::SealBroken;
use crate::hsm::HsmError;
use crate::store::StoreError;
use token_verifier::Refusal;
use token_verifier::TokenError;

/// One variant for what a caller would do differently.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Refused, with the reason; it is in the decision log.
    #[error(transparent)]
    Denied(Refusal),
    /// A generation that is not put back; it is in the decision log.
    #[error(transparent)]
    NotReset(ResetRefused),
    /// No bearer token.
    #[error("AKV10000: Request is missing a Bearer or PoP token.")]
    NoToken,
    /// A bearer token that is not believed.
    #[error(transparent)]
    BadToken(Refusal),
    /// The request says something that cannot be.
    #[error("{message}")]
    BadParameter {
        /// The field, as a path.
        target: String,
        /// What is wrong with it.
        message: String,
    },
    /// There is no such key.
    #[error(
        "A key with (name/id) {0} was not found in this key vault. If you recently deleted this key you may be able to recover it using the correct recovery command."
    )]
    KeyNotFound(String),
    /// The name is in another state than the request needs.
    #[error("{0}")]
    Conflict(String),
    /// There is no such named vault.
    #[error("there is no vault {0}")]
    VaultNotFound(String),
    /// The name of a vault is in another state than the request needs.
    #[error("{message}")]
    VaultConflict {
        /// For programs.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// A named vault cannot be opened or changed.
    #[error("the vault is not usable")]
    Vault(#[source] Box<super::StartError>),
    /// More bytes than are read.
    #[error("the request body is longer than this service takes ([limits] max_body_bytes)")]
    BodyTooLarge,
    /// The body did not come.
    #[error("the request body did not arrive in time or completely")]
    BodyIncomplete,
    /// An issuer's keys are not available now.
    #[error("a token cannot be checked now")]
    IssuerUnavailable(#[source] TokenError),
    /// The database.
    #[error("the key database failed")]
    Store(#[from] StoreError),
    /// A stored key does not open.
    #[error("the stored key cannot be used")]
    Seal(#[from] SealBroken),
    /// The hardware security module.
    #[error("the hardware security module did not do it")]
    Hsm(#[from] HsmError),
    /// Something that holds by construction does not.
    #[error("an operation with a stored key failed")]
    Key(#[source] CryptoError),
    /// A stored policy that was checked at its creation cannot be read.
    #[error("the stored release policy cannot be read")]
    Policy(#[source] policy::release::ReleasePolicyError),
    /// A worker thread was lost.
    #[error("a worker did not finish")]
    Worker(#[from] tokio::task::JoinError),
}

impl From<super::StartError> for AppError {
    fn from(error: super::StartError) -> Self {
        Self::Vault(Box::new(error))
    }
}

impl AppError {
    /// A field and what is wrong with it.
    pub fn bad(target: impl Into<String>, message: impl Into<String>) -> Self {
        Self::BadParameter { target: target.into(), message: message.into() }
    }
}
