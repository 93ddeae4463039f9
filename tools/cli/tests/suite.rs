//! Integration tests of `casemate`, one file a feature.

#[path = "suite/attestation.rs"]
mod attestation;
#[path = "suite/disk.rs"]
mod disk;
#[path = "suite/guest.rs"]
mod guest;
#[path = "suite/image_import.rs"]
mod image_import;
#[path = "suite/key.rs"]
mod key;
#[path = "suite/platform.rs"]
mod platform;
