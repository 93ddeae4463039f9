//! One file a target.

pub(crate) mod certificates;
pub(crate) mod event_log;
pub(crate) mod hcl;
pub(crate) mod jws;
pub(crate) mod key_bodies;
pub(crate) mod key_import;
pub(crate) mod policy;
pub(crate) mod quote;
pub(crate) mod release_policy;
pub(crate) mod report;
pub(crate) mod sev;
