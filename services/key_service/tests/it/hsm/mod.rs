//! Keys in a hardware security module: SoftHSM2, asked by the service, and by the tests past the service.

mod attacks;
mod crashes;
mod faults;
mod keys;
pub mod moves;
mod token;
