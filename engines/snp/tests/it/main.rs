//! Tests of `snp` against evidence from real machines, against independent implementations, and against attacks.

mod attacks;
mod cache;
mod corpus;
mod explanations;
mod forge;
mod id_block;
mod launch;
mod recorded;
mod robustness;
mod support;
mod verify;
