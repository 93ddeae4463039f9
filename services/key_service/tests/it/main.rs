//! The key service from outside: its routes, its refusals, its files. One test binary, one file a feature.

mod binary;
mod keys;
mod release;
mod support;
