//! key_service.

pub mod app;
pub mod config;
mod crypto;
pub mod http;
pub mod reconcile;
mod serve;
mod store;
mod token;

pub use serve::{RunError, run};
