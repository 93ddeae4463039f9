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
<<<<<<< HEAD
mod operator;
=======
mod planted;
>>>>>>> f7c61109cf2446629311b91a570b62621d77490d
mod refusals;
mod release;
mod rotation;
mod signing_keys;
mod support;
mod types;
