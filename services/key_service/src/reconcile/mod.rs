//! The loop beside the requests: what is due is done, and nothing waits for it.

pub mod prune;
