//! What tests need and nobody ships: a simulated host agent, whole platforms in a folder, a runner for scenarios.

pub mod installation;
pub mod observed;
pub mod runner;
pub mod sim_host;
