//! key_service.
