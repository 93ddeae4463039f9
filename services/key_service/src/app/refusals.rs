//! What the hardware security module's faults look like to a caller, in the five parts.

use token_verifier::{Refusal, refusal};

use crate::hsm::HsmError;

/// The refusal of a fault that somebody can do something about; nothing for the others.
pub fn of_hsm(error: &HsmError) -> Option<Refusal> {
    Some(match error {
        HsmError::Unsupported { mechanism, purpose } => {
            let rule = "a key in an HSM is used inside of it only";
            let remedy = "use another algorithm, or a key type without -HSM";
            let (expected, actual) = (format!("{mechanism} for {purpose}"), "the token does not offer it");
            refusal("HsmMechanismMissing", mechanism.as_str(), expected, actual, rule, remedy)
        }
        HsmError::KeyMissing(id) => {
            let remedy = "restore the token from its own backup, or purge the key";
            object(id, "one object with this CKA_ID", "none", remedy)
        }
        HsmError::KeyAmbiguous { id, count } => {
            let remedy = "find out who put the others there, and destroy them by the vendor's tools";
            object(id, "one object with this CKA_ID", format!("{count}"), remedy)
        }
        HsmError::KeyUnprotected(id) => {
            let remedy = "do not use the key: make a new version, and find out who changed the object";
            let expected = "CKA_PRIVATE, CKA_SENSITIVE, and CKA_EXTRACTABLE for exportable keys only";
            object(id, expected, "other attributes", remedy)
        }
        HsmError::NotConfigured => {
            let rule = "a key in an HSM is used inside of it only";
            let remedy = "name the token that holds the key in the configuration ([hsm])";
            refusal("HsmNotConfigured", "hsm", "the token that holds the key", "no token", rule, remedy)
        }
        _ => return None,
    })
}

fn object(id: &str, expected: &str, actual: impl Into<String>, remedy: &str) -> Refusal {
    let rule = "a key in an HSM is one object of the token, as protected as it was made";
    refusal("HsmKeyObject", format!("CKA_ID {id}"), expected, actual, rule, remedy)
}
