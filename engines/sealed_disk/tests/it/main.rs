//! Integration tests of the sealed disk: crashes, attacks, and the programs that must understand what is written here.
#![allow(clippy::cast_possible_truncation, reason = "tests cast small known numbers")]

mod boot_region;
mod crash_disk;
mod guest_state;
mod luks2;
mod provision;
mod seal;
mod tools;
