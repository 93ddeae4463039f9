//! `casemate-keys check` and the hardware security module. It destroys nothing: that is the running service's to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{CommandError, refusals};
use crate::app::custody::{Fate, family, fate};
use crate::hsm::{Held, Hsm, KeyId};
use crate::store::keys::KeyRecord;

/// The token, and what is this vault's in it.
pub struct TokenCheck {
    hsm: Arc<Hsm>,
    held: Vec<Held>,
}

impl TokenCheck {
    /// Lists the objects before the rows are read, so that one that is stored meanwhile counts as stored.
    pub fn of(hsm: Arc<Hsm>, vault: &str) -> Result<Self, CommandError> {
        let held = hsm.held(vault)?;
        Ok(Self { hsm, held })
    }

    /// Whether the object of a row is there, protected as it should be, and the one whose public part is shown.
    pub fn prove(&self, record: &KeyRecord, id: KeyId) -> Result<(), CommandError> {
        self.hsm
            .holds(id, family(&record.public), record.exportable)
            .map_err(|error| refusals::token_object(record, error))?;
        if self.hsm.signs_for(id, &record.public)? {
            return Ok(());
        }
        Err(refusals::public_part(record))
    }

    /// What is in the token, and what of it no row refers to: by an interrupted request, or for a reason to find out.
    pub fn told(&self, referred: &BTreeSet<KeyId>) -> Value {
        let now = jiff::Timestamp::now().as_second();
        let with = |wanted: Fate| -> Vec<String> {
            let lost =
                self.held.iter().filter(|held| fate(&held.label, referred.contains(&held.id), now) == wanted);
            lost.map(|held| held.id.text()).collect()
        };
        json!({
            "objects": self.held.len(),
            "interrupted": with(Fate::IsDestroyed),
            "withoutRow": with(Fate::Unknown),
        })
    }
}
