//! The two kinds of tokens that the vault takes: those of callers, and those of attested VMs.

pub mod caller;
pub mod evidence;
