//! One file a command.

pub mod attestation;
pub mod disk;
pub mod down;
pub mod image;
pub mod key;
pub mod log;
pub mod status;
pub mod up;
pub mod verify;
pub mod vm;
