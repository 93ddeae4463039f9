//! The VM's TPM: the implementation ([`engine`], [`libtpms`]), what the paravisor adds ([`identity`], [`front`]), and
//! QEMU's way to reach it ([`server`]).

pub mod certificate;
mod channel;
pub mod engine;
pub mod front;
pub mod identity;
pub mod libtpms;
pub mod protocol;
pub mod report;
pub mod server;
