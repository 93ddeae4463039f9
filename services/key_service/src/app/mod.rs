//! Verbs and decisions; no HTTP types, no SQL.

mod backup;
pub mod counts;
pub mod custody;
mod deleted;
pub mod error;
pub mod generation;
mod in_token;
pub mod keys;
pub mod opened;
pub mod operate;
pub(crate) mod quoted;
pub mod random;
mod readiness;
pub mod recent;
pub(crate) mod refusals;
pub mod release;
pub mod reset;
mod rotate;
pub(crate) mod schedule;
mod sign;
pub(crate) mod state;
mod succession;
mod update;
pub(crate) mod validate;

pub use error::AppError;
pub use state::{AppState, Clock, StartError};

/// A point of this process in its fault plan.
pub(crate) fn reach(point: &str) {
    fault_plan::reach("keys", point);
}
