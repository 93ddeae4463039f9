//! The key service from outside: its routes, its refusals, its files. One test binary, one file a feature.

mod at_rest;
mod attacks;
mod backup;
mod binary;
mod clients;
mod database_copy;
mod generations;
mod histories;
mod hsm;
mod http;
mod import;
mod keys;
mod log;
mod master_key;
mod migration;
mod operations;
mod operator;
mod planted;
mod postgres;
mod refusals;
mod release;
mod rotation;
mod signing_keys;
mod support;
mod types;
mod vaults;
