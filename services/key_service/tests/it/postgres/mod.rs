//! Vaults on a PostgreSQL server: the same answers as on a file, several services at once, and a server that goes away.

mod lost;
mod moves;
mod replicas;
mod server;
mod suite;
