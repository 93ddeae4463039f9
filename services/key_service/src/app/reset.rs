//! Putting a VM's newest generation back, so that a guest state that was restored from a backup gets its key again.
//!
//! This is the one way back behind a release, and it is an officer's: whoever may release may not reset. It is decided,
//! done and logged in one transaction, on the generation that stands there then. What it permits:
//!
//! ```text
//!   before:  0 - 1 - 2 - 3 - 4 - 5       last = 5: only 5 and 6 are released
//!   reset from 5 to 2
//!   after:           2 - 3'- 4'...       last = 2: only 2 and 3 are released, then 3 and 4, and so on
//! ```
//!
//! States below `to` stay refused. A generation is a number, so nothing tells state 3 of before the reset from 3' of after
//! it: until the new states have numbers above those that were left behind (up to `from` + 1), a host that kept those can
//! present one in its turn. Tokens that were used before the reset stay used up.

use public_api::decision_log::Decision;
use public_api::key_generations::{
    GenerationListResult, GenerationResetParameters, GenerationResetResult, VmGeneration,
};
use serde_json::json;
use token_verifier::{Refusal, refusal, shown};

use super::keys::{KeyRef, not_found};
use super::{AppError, AppState};
use crate::store::keys::{self, Among};
use crate::store::{Connection, StoreError, decisions, releases};
use crate::token::caller::Caller;
use crate::token::evidence::guid;

/// Why a generation is not put back.
#[derive(Debug, thiserror::Error)]
pub enum ResetRefused {
    /// The key has released no guest state of the VM.
    #[error(transparent)]
    Unknown(Refusal),
    /// Another generation stands there than the caller believes.
    #[error(transparent)]
    Moved(Refusal),
    /// It would not be put back.
    #[error(transparent)]
    NotLower(Refusal),
}

impl ResetRefused {
    fn refusal(&self) -> &Refusal {
        match self {
            Self::Unknown(refusal) | Self::Moved(refusal) | Self::NotLower(refusal) => refusal,
        }
    }
}

/// Decides on a reset, given the generation that was released last.
pub fn check(vm_id: &str, last: Option<u64>, asked: GenerationResetParameters) -> Result<(), ResetRefused> {
    let GenerationResetParameters { from, to } = asked;
    let Some(last) = last else { return Err(ResetRefused::Unknown(unknown(vm_id))) };
    if last != from {
        return Err(ResetRefused::Moved(moved(last, from)));
    }
    if to >= from {
        return Err(ResetRefused::NotLower(not_lower(asked)));
    }
    Ok(())
}

impl AppState {
    /// `GET /keys/{name}/generations`
    pub async fn generations(&self, name: &str) -> Result<GenerationListResult, AppError> {
        let record = self.record(&KeyRef { name: name.to_owned(), version: None }).await?;
        let found = releases::generations(self.store.readers(), &record.name).await?;
        let value = found.into_iter().map(|(vm_id, generation)| VmGeneration { vm_id, generation }).collect();
        Ok(GenerationListResult { value })
    }

    /// `PUT /keys/{name}/generations/{vmId}`
    pub async fn reset_generation(
        &self,
        caller: &Caller,
        (name, vm_id): (&str, &str),
        asked: GenerationResetParameters,
    ) -> Result<GenerationResetResult, AppError> {
        let key = KeyRef { name: name.to_owned(), version: None };
        let vm = guid(vm_id).ok_or_else(|| AppError::bad("vmId", format!("{} is no GUID", shown(vm_id))))?;
        let GenerationResetParameters { from, to } = asked;
        let detail =
            json!({"operation": "resetGeneration", "caller": caller.id(), "vm": vm, "from": from, "to": to});
        let mut event = self.event(Decision::PolicyChanged, "", None, detail);
        let (base_url, now) = (self.base_url.clone(), self.now());
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                let Some(record) = keys::find(&mut *connection, Among::Live, &key.name, None).await? else {
                    return Ok(Err(not_found(&key)));
                };
                event.subject = format!("{base_url}/keys/{}", record.name);
                let reset = reset(connection, (&record.name, &vm), asked, now).await?;
                match &reset {
                    Ok(keys) => event.detail["keys"] = json!(keys),
                    Err(refused) => {
                        event.decision = Decision::Refused;
                        event.denial = Some(refused.refusal().as_ref().clone());
                    }
                }
                decisions::append(connection, event).await?;
                let answer = reset.map(|keys| GenerationResetResult { vm_id: vm, generation: to, keys });
                Ok(answer.map_err(AppError::NotReset))
            })
        });
        written.await?.into_inner()
    }
}

/// Decides and does it, in its transaction. Returns the names of the keys concerned.
async fn reset(
    connection: &mut Connection,
    (name, vm): (&str, &str),
    asked: GenerationResetParameters,
    now: i64,
) -> Result<Result<Vec<String>, ResetRefused>, StoreError> {
    let last = releases::last_generation(connection, name, vm).await?;
    if let Err(refused) = check(vm, last, asked) {
        return Ok(Err(refused));
    }
    Ok(Ok(releases::reset_generation(connection, name, vm, asked.to, now).await?))
}

fn unknown(vm_id: &str) -> Refusal {
    let rule = "only a VM whose guest state this key has released has a generation under its name";
    let remedy = "list the key's generations, and name one of their VMs";
    let expected = "a VM whose guest state this key has released";
    refusal("GenerationUnknown", "vmId", expected, vm_id, rule, remedy)
}

fn moved(last: u64, from: u64) -> Refusal {
    let rule = "a generation is put back only from what the caller believes it to be";
    let remedy = "list the key's generations; if the VM has started meanwhile, see first whether it still needs the reset";
    refusal("GenerationMoved", "from", last.to_string(), from.to_string(), rule, remedy)
}

fn not_lower(asked: GenerationResetParameters) -> Refusal {
    let GenerationResetParameters { from, to } = asked;
    let rule = "a reset puts a generation back; only releases move it on";
    let remedy = "name the generation of the guest state that was restored";
    let expected = format!("a generation lower than {from}");
    refusal("GenerationNotLower", "to", expected, to.to_string(), rule, remedy)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(last: Option<u64>, from: u64, to: u64) -> Option<String> {
        let refused = check("VM", last, GenerationResetParameters { from, to }).err()?;
        Some(refused.refusal().code.clone())
    }

    #[test]
    fn back_from_what_stands_there_and_nowhere_else() {
        let cases = [
            (None, 0, 0, Some("GenerationUnknown")),
            (None, 3, 1, Some("GenerationUnknown")),
            (Some(3), 3, 0, None),
            (Some(3), 3, 2, None),
            (Some(3), 3, 3, Some("GenerationNotLower")),
            (Some(3), 3, 4, Some("GenerationNotLower")),
            (Some(0), 0, 0, Some("GenerationNotLower")),
            (Some(3), 2, 1, Some("GenerationMoved")),
            (Some(3), 4, 1, Some("GenerationMoved")),
            (Some(3), u64::MAX, 1, Some("GenerationMoved")),
        ];
        for (last, from, to, expected) in cases {
            assert_eq!(code(last, from, to).as_deref(), expected, "{last:?}: {from} to {to}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_a_reset_never_moves_on(last: Option<u64>, from: u64, to: u64) {
            if code(last, from, to).is_none() {
                prop_assert!(last.is_some_and(|last| to < last));
            }
        }
    }
}
