//! The loops beside the requests: what is due is done, and nothing waits for it.

pub mod forget;
pub mod prune;
pub mod rotate;
pub mod sweep;
