//! The key service from outside: its routes, its refusals, its files. One test binary, one file a feature.

mod at_rest;
mod attacks;
mod binary;
mod generations;
mod http;
mod keys;
mod log;
mod release;
mod signing_keys;
mod support;
