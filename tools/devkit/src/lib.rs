//! What tests need and nobody ships: a simulated host agent, whole platforms in a folder, fault plans.

pub mod sim_host;
