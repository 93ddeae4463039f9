//! devkit.
