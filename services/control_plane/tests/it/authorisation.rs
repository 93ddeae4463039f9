//! authorisation
