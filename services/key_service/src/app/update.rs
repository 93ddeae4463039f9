//! Changing a key: `PATCH`.

use public_api::decision_log::Decision;
use public_api::keys::{KeyBundle, KeyReleasePolicy, KeyUpdateParameters};

use super::keys::{KeyRef, binding};
use super::{AppError, AppState, validate};
use crate::store::decisions;
use crate::store::keys::{self, KeyRecord};
use crate::token::caller::Caller;

/// How often a change that others overtake is made again.
const UPDATE_ATTEMPTS: u32 = 8;

impl AppState {
    /// `PATCH /keys/{name}[/{version}]`
    ///
    /// A change that another one overtook is made again on what the other left, so that none undoes another. Without a
    /// version it is made on the newest: a key that is being disabled while it is rotated does not stay enabled.
    pub async fn update_key(
        &self,
        caller: &Caller,
        key: &KeyRef,
        parameters: &KeyUpdateParameters,
    ) -> Result<KeyBundle, AppError> {
        for _ in 0..UPDATE_ATTEMPTS {
            if let Some(bundle) = self.try_update(caller, key, parameters).await? {
                return Ok(bundle);
            }
        }
        Err(AppError::Conflict(format!("Key {} is being changed by others; try again.", key.name)))
    }

    async fn try_update(
        &self,
        caller: &Caller,
        key: &KeyRef,
        parameters: &KeyUpdateParameters,
    ) -> Result<Option<KeyBundle>, AppError> {
        let mut record = self.record(key).await?;
        let policy_changes = self.apply(&mut record, parameters, key.version.is_some())?;
        record.updated = self.now();
        let bundle = self.bundle(&record);
        let mut event = self.key_event(caller, "update", &record);
        if policy_changes {
            event.decision = Decision::PolicyChanged;
        }
        let newest_is_meant = key.version.is_none();
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                if newest_is_meant && !keys::is_newest(&mut *connection, &record).await? {
                    return Ok(false);
                }
                let written = keys::update(connection, &record).await?;
                if written {
                    decisions::append(connection, event).await?;
                }
                Ok(written)
            })
        });
        Ok(written.await?.into_inner().then_some(bundle))
    }

    /// Puts the changes into `record`; returns whether the release policy is among them.
    fn apply(
        &self,
        record: &mut KeyRecord,
        parameters: &KeyUpdateParameters,
        versioned: bool,
    ) -> Result<bool, AppError> {
        let attributes = parameters.attributes.clone().unwrap_or_default();
        validate::settable(&attributes)?;
        if attributes.exportable.is_some_and(|exportable| exportable != record.exportable) {
            let text = "The exportable attribute of a key cannot be changed.";
            return Err(validate::skr("1003", "attributes.exportable", text));
        }
        record.enabled = attributes.enabled.unwrap_or(record.enabled);
        record.not_before = attributes.nbf.or(record.not_before);
        record.expires = attributes.exp.or(record.expires);
        validate::dates(record.not_before, record.expires)?;
        if let Some(tags) = &parameters.tags {
            validate::tags(tags)?;
            record.tags.clone_from(tags);
        }
        match parameters.key_ops.as_deref() {
            Some([]) => return Err(AppError::bad("key_ops", "name at least one operation")),
            Some(ops) => record.key_ops = validate::key_ops(record.key_type.family, ops)?,
            None => {}
        }
        match &parameters.release_policy {
            Some(policy) => self.replace_policy(record, policy.clone(), versioned),
            None => Ok(false),
        }
    }

    /// Seals the key anew under its new policy.
    fn replace_policy(
        &self,
        record: &mut KeyRecord,
        policy: KeyReleasePolicy,
        versioned: bool,
    ) -> Result<bool, AppError> {
        if versioned {
            let text = "Key Release Policy can only be set on versionless key";
            return Err(validate::skr("1016", "release_policy", text));
        }
        let Some(old) = &record.policy else {
            let text = "Non-exportable keys must not have release policy.";
            return Err(validate::skr("1005", "release_policy", text));
        };
        let new = validate::checked_policy(policy)?;
        if *old == new {
            return Ok(false);
        }
        if old.immutable {
            let text = "Immutable Key Release Policy cannot be modified.";
            return Err(validate::skr("1020", "release_policy", text));
        }
        if let Some(reference) = self.reference(record) {
            record.policy = Some(new);
            record.sealed = reference.seal(&self.master, &binding(record));
            return Ok(true);
        }
        let private = self.open_key(record)?;
        record.policy = Some(new);
        record.sealed = self.master.seal(&private, &binding(record));
        Ok(true)
    }
}
