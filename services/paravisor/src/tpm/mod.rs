//! The VM's TPM: the implementation ([`engine`], [`libtpms`]), what the paravisor adds, and QEMU's way to reach it
//! ([`server`]).

mod channel;
pub mod engine;
pub mod libtpms;
pub mod protocol;
pub mod server;
