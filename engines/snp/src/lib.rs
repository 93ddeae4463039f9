//! snp.
