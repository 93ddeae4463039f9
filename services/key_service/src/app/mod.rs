//! Verbs and decisions; no HTTP types, no SQL.

mod backup;
pub mod counts;
mod deleted;
pub mod error;
pub mod generation;
pub mod keys;
pub mod operate;
pub(crate) mod quoted;
pub mod random;
mod readiness;
pub mod release;
mod rotate;
pub(crate) mod schedule;
mod sign;
mod state;
pub mod succession;
mod update;
pub(crate) mod validate;

pub use error::AppError;
pub use state::{AppState, Clock, StartError};

/// A point of this process in its fault plan.
fn reach(point: &str) {
    fault_plan::reach("keys", point);
}
