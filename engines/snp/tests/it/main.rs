//! Tests of `snp` against evidence from real machines and against independent implementations.

mod launch;
mod support;
mod verify;
