//! LUKS2
