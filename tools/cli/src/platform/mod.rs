//! The platform on one machine: installation, processes, supervision.

pub mod capacity;
pub mod configs;
pub mod install;
pub mod lock;
pub mod pki;
pub mod ports;
pub mod programs;
pub mod recipe;
pub mod supervise;
