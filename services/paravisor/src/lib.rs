//! paravisor.
