//! Deleting keys, and what can still be done with a deleted one.
//!
//! ```text
//!   live --DELETE /keys/{n}--> deleted --DELETE /deletedkeys/{n}, or its days over--> gone
//!    ^                            |
//!    '--POST .../recover----------'
//! ```

use public_api::keys::{DeletedKeyBundle, Deletion, KeyBundle};
use serde_json::json;
use token_verifier::{Refusal, refusal};

use super::keys::{KeyRef, not_found};
use super::{AppError, AppState, reach};
use crate::store::decisions;
use crate::store::keys::{self, Among, KeyRecord, NameState};
use crate::token::caller::Caller;

const DAY: i64 = 86_400;

impl AppState {
    /// `DELETE /keys/{name}`
    pub async fn delete_key(&self, caller: &Caller, name: &str) -> Result<DeletedKeyBundle, AppError> {
        let key = KeyRef { name: name.to_owned(), version: None };
        let record = self.record(&key).await?;
        let now = self.now();
        let purge_at = now + i64::from(self.recovery.days) * DAY;
        let event = self.key_event(caller, "delete", &record);
        let bundle = self.bundle(&record);
        let deletion = self.deletion_of(&record.name, now, purge_at);
        reach("before deleting a key");
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                if keys::name_state(&mut *connection, &record.name).await? != NameState::Live {
                    return Ok(Err(not_found(&key)));
                }
                keys::set_deleted(connection, &record.name, Some((now, purge_at))).await?;
                decisions::append(connection, event).await?;
                Ok(Ok(()))
            })
        });
        written.await?.into_inner()?;
        reach("after deleting a key");
        Ok(DeletedKeyBundle { bundle, deletion })
    }

    /// `GET /deletedkeys/{name}`
    pub async fn deleted_key(&self, name: &str) -> Result<DeletedKeyBundle, AppError> {
        let record = self.deleted_record(name).await?;
        let deletion =
            self.deletion(&record.name).await?.ok_or_else(|| AppError::KeyNotFound(name.to_owned()))?;
        Ok(DeletedKeyBundle { bundle: self.bundle(&record), deletion })
    }

    /// `POST /deletedkeys/{name}/recover`
    pub async fn recover_key(&self, caller: &Caller, name: &str) -> Result<KeyBundle, AppError> {
        let record = self.deleted_record(name).await?;
        let event = self.key_event(caller, "recover", &record);
        let bundle = self.bundle(&record);
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                if !matches!(
                    keys::name_state(&mut *connection, &record.name).await?,
                    NameState::Deleted { .. }
                ) {
                    return Ok(Err(AppError::KeyNotFound(record.name)));
                }
                keys::set_deleted(connection, &record.name, None).await?;
                decisions::append(connection, event).await?;
                Ok(Ok(()))
            })
        });
        written.await?.into_inner()?;
        Ok(bundle)
    }

    /// `DELETE /deletedkeys/{name}`: the key is gone for good.
    pub async fn purge_key(&self, caller: &Caller, name: &str) -> Result<(), AppError> {
        let record = self.deleted_record(name).await?;
        if self.recovery.purge_protection {
            let detail = json!({"caller": caller.id(), "operation": "purge"});
            return Err(self.refuse(&self.kid(&record), purge_protected(), detail).await);
        }
        let event = self.key_event(caller, "purge", &record);
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                if !keys::purge(connection, &record.name).await? {
                    return Ok(Err(AppError::KeyNotFound(record.name)));
                }
                decisions::append(connection, event).await?;
                Ok(Ok(()))
            })
        });
        written.await?.into_inner()
    }

    async fn deleted_record(&self, name: &str) -> Result<KeyRecord, AppError> {
        let found = keys::find(self.store.readers(), Among::Deleted, name, None).await?;
        found.ok_or_else(|| AppError::KeyNotFound(name.to_owned()))
    }

    pub(super) async fn deletion(&self, name: &str) -> Result<Option<Deletion>, AppError> {
        match keys::name_state(self.store.readers(), name).await? {
            NameState::Deleted { deleted, purge_at } => Ok(Some(self.deletion_of(name, deleted, purge_at))),
            NameState::Free | NameState::Live => Ok(None),
        }
    }

    fn deletion_of(&self, name: &str, deleted: i64, purge_at: i64) -> Deletion {
        let recovery_id = format!("{}/deletedkeys/{name}", self.base_url);
        Deletion { recovery_id, deleted_date: deleted, scheduled_purge_date: purge_at }
    }
}

fn purge_protected() -> Refusal {
    let rule = "purge protection: nobody destroys a deleted key before its time";
    let remedy = "wait for the scheduled purge date, or recover the key";
    refusal(
        "PurgeProtected",
        "recoveryLevel",
        "a level that ends in +Purgeable",
        "purge protection",
        rule,
        remedy,
    )
}
