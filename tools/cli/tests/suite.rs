//! Integration tests of `casemate`, one file a feature.

#[path = "suite/image_import.rs"]
mod image_import;
