//! Block devices over NBD ([`server`]), the protocol by its numbers (`wire`).

pub mod server;
mod wire;
