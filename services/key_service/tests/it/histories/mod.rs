//! Histories of requests that overlap, checked for linearizability against a model of one key name.

mod checker;
mod checker_tests;
mod interleavings;
mod kills;
mod load;
mod model;
mod model_tests;
mod replicas;
mod requests;
mod rng;
mod witness;
