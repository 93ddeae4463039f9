//! The two kinds of tokens that the vault takes, those of callers and those of attested VMs, and what callers may do.

pub mod access;
pub mod caller;
pub mod evidence;
pub mod permission;
