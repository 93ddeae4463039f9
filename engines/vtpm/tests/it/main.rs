//! Integration tests, one file a feature. What needs evidence or programs that are not there says that it was skipped.
#![allow(clippy::print_stderr, reason = "a test says what it skipped, and why")]

mod disk;
mod event_log;
mod evidence;
mod firmware_variables;
mod fixture;
mod image;
mod other_loaders;
mod real_image;
mod signing;
mod systemd_boot;
mod tpm;
