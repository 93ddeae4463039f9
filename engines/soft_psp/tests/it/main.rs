//! The software processor as a process: what it launches, signs, serves and refuses; judged by two independent verifiers.

mod evidence;
mod kds;
mod launch;
mod process;
mod processor;
mod protocol;
