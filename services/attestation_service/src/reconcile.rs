//! Loops that keep something current: observe, decide, act, and again.

pub mod revocation;
pub mod rotation;
