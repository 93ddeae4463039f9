//! The key service from outside: its routes, its refusals, its files. One test binary, one file a feature.

mod at_rest;
mod attacks;
mod backup;
mod binary;
mod clients;
mod database_copy;
mod generations;
mod histories;
mod http;
mod import;
mod keys;
mod log;
mod migration;
mod operations;
mod operator;
mod planted;
mod refusals;
mod release;
mod rotation;
mod signing_keys;
mod succession;
mod support;
mod types;
