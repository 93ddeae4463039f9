//! soft_psp.
