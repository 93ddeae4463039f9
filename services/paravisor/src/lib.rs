//! The paravisor: what runs below the guest OS, inside the VM's boundary.
//!
//! It gets the VM's keys by attestation, provisions the disk before the guest first runs, keeps the guest state, is the
//! VM's TPM and relays its OS disk. It is not trusted by the host, and it trusts nothing that the host says but what
//! HOST_DATA binds or a MAC covers. The logic (`flow`, `tpm::front`, `disk`) knows neither QEMU nor sockets; the front
//! end for a development host ([`development_host`], `tpm::server`, [`nbd`]) is a process beside QEMU.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

pub mod config;
pub mod development_host;
pub mod disk;
pub mod failure;
pub mod flow;
pub mod inspect;
pub mod nbd;
pub mod recover;
pub mod tpm;
