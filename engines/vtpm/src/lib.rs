//! vtpm.
