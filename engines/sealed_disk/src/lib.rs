//! sealed_disk.
