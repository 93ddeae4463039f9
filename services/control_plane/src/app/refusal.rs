//! Why a request is refused: Resource Manager's code and text, and which of the caller's mistakes it is.

use public_api::Denial;
use public_api::denial::{ErrorBody, ErrorDetail};

/// The kind of a refusal; each is one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request itself is wrong.
    BadRequest,
    /// No valid token.
    Unauthorized,
    /// A valid token without the right.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// There is, but not for this method.
    MethodNotAllowed,
    /// Not in this state.
    Conflict,
    /// Body too large.
    TooLarge,
    /// Our fault.
    Internal,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Which status.
    pub kind: Kind,
    /// Resource Manager's code.
    pub code: String,
    /// Text for people.
    pub message: String,
    /// The property that is meant.
    pub target: Option<String>,
    /// The five parts, if a rule of trust decided.
    pub denial: Option<Box<Denial>>,
}

impl Refusal {
    /// A refusal with code and text.
    pub fn new(kind: Kind, code: &str, message: impl Into<String>) -> Self {
        Self { kind, code: code.to_owned(), message: message.into(), target: None, denial: None }
    }

    /// 400 `BadRequest`.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, "BadRequest", message)
    }

    /// 400 `InvalidParameter` about one property.
    pub fn parameter(target: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, "InvalidParameter", message).at(target)
    }

    /// 409 with a code.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, code, message)
    }

    /// 404 `ResourceNotFound`, as Resource Manager words it. `kind` is for example `Microsoft.Compute/disks`.
    pub fn not_found(kind: &str, name: &str, group: &str) -> Self {
        let message = format!("The Resource '{kind}/{name}' under resource group '{group}' was not found.");
        Self::new(Kind::NotFound, "ResourceNotFound", message)
    }

    /// 404 `ResourceGroupNotFound`.
    pub fn no_group(group: &str) -> Self {
        let message = format!("Resource group '{group}' could not be found.");
        Self::new(Kind::NotFound, "ResourceGroupNotFound", message)
    }

    /// The same refusal, with the property that it is about.
    #[must_use]
    pub fn at(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }

    /// The error envelope.
    pub fn body(&self) -> ErrorBody {
        let error = ErrorDetail {
            code: self.code.clone(),
            message: self.message.clone(),
            target: self.target.clone(),
            details: Vec::new(),
            denial: self.denial.as_deref().cloned(),
        };
        ErrorBody { error }
    }
}

impl From<crate::store::StoreError> for Refusal {
    /// The cause goes to our log, not to the caller.
    fn from(error: crate::store::StoreError) -> Self {
        tracing::error!("{}", crate::chain(&error));
        Self::new(
            Kind::Internal,
            "InternalServerError",
            "the control plane's database failed; its log says why",
        )
    }
}
