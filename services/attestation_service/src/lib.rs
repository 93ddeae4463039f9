//! attestation_service.
