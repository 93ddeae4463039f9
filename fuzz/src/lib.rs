//! Fuzz targets for every parser of bytes from outside that trust hangs on, and the seeds to begin with.
//!
//! A [`Target`] is a function that takes any bytes and panics when a property does not hold. It is ordinary Rust: the
//! unit lane runs each target over its seeds and over some damaged ones. `cargo xtask fuzz` builds the same functions
//! with coverage counters and lets libFuzzer look for worse (`main.rs`). Keys are made anew in each process; inputs
//! that must be signed are signed by the target itself, so that a mutation reaches what stands behind the signature.

mod seeds;
mod support;
mod targets;

#[path = "../../engines/snp/tests/it/forge.rs"]
#[allow(dead_code, reason = "the tests of `snp` use more of it")]
mod forge;

pub use seeds::write_seeds;

/// What is fuzzed.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Panics when a property does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that the format is made of.
    pub words: &'static [&'static [u8]],
    /// Longest input that makes sense, in bytes.
    pub max_len: usize,
}

/// All targets.
pub const TARGETS: [Target; 11] = [
    targets::report::TARGET,
    targets::certificates::TARGET,
    targets::sev::TARGET,
    targets::event_log::TARGET,
    targets::quote::TARGET,
    targets::hcl::TARGET,
    targets::policy::TARGET,
    targets::release_policy::TARGET,
    targets::jws::TARGET,
    targets::key_import::TARGET,
    targets::key_bodies::TARGET,
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    static ALL: [Target; 11] = TARGETS;
    ALL.iter().find(|target| target.name == name)
}
