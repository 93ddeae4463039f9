//! The firmware's variables, which the host stores: read, never trusted.
//!
//! The Secure Boot state (all inputs of PCR 7 but shim's) is pinned at provisioning to that of the shipped template. The
//! loaders' variables may change: they choose an entry, and the entry is what is checked and sealed to.

use public_api::encoding::base64url;
use serde::{Deserialize, Serialize};
use vtpm::vars::{SecureBootState, VarStore};
use zeroize::Zeroizing;

use super::launch::malformed;
use crate::failure::Stop;

/// The approved Secure Boot state, as the guest state keeps it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approved {
    secure_boot: bool,
    #[serde(with = "base64url")]
    pk: Vec<u8>,
    #[serde(with = "base64url")]
    kek: Vec<u8>,
    #[serde(with = "base64url")]
    db: Vec<u8>,
    #[serde(with = "base64url")]
    dbx: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dbt: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dbr: Option<Vec<u8>>,
}

impl Approved {
    /// What the shipped variables say; it must be what the tenant ordered.
    pub fn from_template(template: &VarStore, secure_boot: bool) -> Result<Self, Stop> {
        let state = template.secure_boot_state();
        if state.secure_boot != secure_boot {
            return Err(Stop::refused(
                "SecureBootMismatch",
                "secureBoot of the launch document",
                secure_boot.to_string(),
                state.secure_boot.to_string(),
                "the firmware's variables at the first start are those of the configuration that the tenant ordered",
                "the host chose another template of firmware variables; correct the host's configuration",
            ));
        }
        let SecureBootState { secure_boot, pk, kek, db, dbx, dbt, dbr } = state;
        Ok(Self { secure_boot, pk, kek, db, dbx, dbt, dbr })
    }

    /// As it is stored.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Stop> {
        serde_json::to_vec(self)
            .map(Zeroizing::new)
            .map_err(|error| malformed("Secure Boot state", &error.to_string()))
    }

    /// From the guest state.
    pub fn parse(bytes: &[u8]) -> Result<Self, Stop> {
        serde_json::from_slice(bytes).map_err(|error| malformed("Secure Boot state", &error.to_string()))
    }

    /// For the predictor.
    pub fn state(&self) -> SecureBootState {
        let Self { secure_boot, pk, kek, db, dbx, dbt, dbr } = self.clone();
        SecureBootState { secure_boot, pk, kek, db, dbx, dbt, dbr }
    }

    /// Refuses variables whose Secure Boot state is another one.
    pub fn check(&self, current: &VarStore) -> Result<(), Stop> {
        let (approved, found) = (self.state(), current.secure_boot_state());
        if approved == found {
            return Ok(());
        }
        let digest =
            |data: &[u8]| format!("{} bytes, SHA-256 {}", data.len(), hex::encode(vtpm::pcr::sha256(data)));
        let optional = |data: &Option<Vec<u8>>| data.as_deref().map_or("absent".to_owned(), digest);
        let parts = [
            ("SecureBoot", approved.secure_boot.to_string(), found.secure_boot.to_string()),
            ("PK", digest(&approved.pk), digest(&found.pk)),
            ("KEK", digest(&approved.kek), digest(&found.kek)),
            ("db", digest(&approved.db), digest(&found.db)),
            ("dbx", digest(&approved.dbx), digest(&found.dbx)),
            ("dbt", optional(&approved.dbt), optional(&found.dbt)),
            ("dbr", optional(&approved.dbr), optional(&found.dbr)),
        ];
        let (mut expected, mut actual) = (Vec::new(), Vec::new());
        for (name, approved, found) in parts {
            if approved != found {
                expected.push(format!("{name}: {approved}"));
                actual.push(format!("{name}: {found}"));
            }
        }
        Err(Stop::refused(
            "FirmwareVariablesChanged",
            "Secure Boot state (PCR 7)",
            expected.join("; "),
            actual.join("; "),
            "the volume key is sealed to the Secure Boot state of the first start",
            "put the firmware variables back; if the guest changed them itself, recover the data with the recovery key",
        ))
    }
}

/// Parses a variable store that the host handed in.
pub fn parse(what: &str, bytes: &[u8]) -> Result<VarStore, Stop> {
    VarStore::parse(bytes).map_err(|error| malformed(what, &error.to_string()))
}
