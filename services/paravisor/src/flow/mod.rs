//! From a launch document to a running guest and back: the steps of a start, a reset and a stop.
//!
//! ```text
//! check launch ─► attest(g) ─► release key(g) ─┬─ first start:  make TPM, encrypt disk ─┐
//!                                              └─ later starts: open the guest state ───┤
//!     ready ◄─ release(g+1) ◄─ attest(g+1, boot chain) ◄─ write state as g+1 ◄─ seal ◄──┘
//!       │
//!       ├─ while the guest boots: a certificate for the attestation key, if it has none or an old one
//!       ├─ reset: seal for the next boot, same generation
//!       ├─ another key: release(g+1, next key) ─► release next key ─► write state as g+2 under it ─► release(g+2)
//!       ├─ every quarter of an hour: release(g+1), to hear whether the tenant has revoked the key
//!       └─ stop:  write state as g+2 ─► release(g+2)
//! ```
//! Nothing of a first start exists before its one commit: a crash before it is a first start again, a crash after it a
//! later start. Knows neither QEMU nor sockets; what it needs of its surroundings are the traits in [`world`].

pub mod ak_certificate;
pub mod attest;
pub mod change_key;
pub mod keeper;
pub mod key_check;
pub mod launch;
pub mod owner;
pub mod provision;
pub mod record;
pub mod recovery;
pub mod recovery_document;
pub mod release;
pub mod reopen;
pub mod rules;
pub mod seal;
pub mod start;
pub mod vars;
pub mod world;
