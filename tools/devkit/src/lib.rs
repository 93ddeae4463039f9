//! What tests need and nobody ships: a simulated host agent, whole platforms in a folder, a machine that plays a guest, a
//! runner for scenarios.

pub mod guest;
pub mod installation;
pub mod machine;
pub mod observed;
pub mod runner;
pub mod sim_host;
