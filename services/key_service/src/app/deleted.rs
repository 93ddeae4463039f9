//! Deleting keys, and what can still be done with a deleted one.
//!
//! ```text
//!   live --DELETE /keys/{n}--> deleted --DELETE /deletedkeys/{n}, or its days over--> gone
//!    ^                            |
//!    '--POST .../recover----------'
//! ```

use public_api::decision_log::Decision;
use public_api::keys::{DeletedKeyBundle, Deletion, KeyBundle};
use serde_json::{Value, json};
use token_verifier::{Refusal, refusal};

use super::keys::{KeyRef, key_detail, kid, not_found};
use super::state::promised;
use super::{AppError, AppState, reach};
use crate::store::keys::{self, Among, KeyRecord, NameState};
use crate::store::{Connection, StoreError, decisions};
use crate::token::caller::Caller;

const DAY: i64 = 86_400;

/// A step in a name's life.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Delete { now: i64, purge_at: i64 },
    Recover,
    Purge,
}

impl Turn {
    fn operation(self) -> &'static str {
        match self {
            Turn::Delete { .. } => "delete",
            Turn::Recover => "recover",
            Turn::Purge => "purge",
        }
    }

    /// Where the name is before.
    fn among(self) -> Among {
        match self {
            Turn::Delete { .. } => Among::Live,
            Turn::Recover | Turn::Purge => Among::Deleted,
        }
    }

    async fn apply(self, connection: &mut Connection, name: &str) -> Result<(), StoreError> {
        match self {
            Turn::Delete { now, purge_at } => {
                keys::set_deleted(connection, name, Some((now, purge_at))).await
            }
            Turn::Recover => keys::set_deleted(connection, name, None).await,
            Turn::Purge => keys::purge(connection, name).await.map(|_| ()),
        }
    }
}

impl AppState {
    /// `DELETE /keys/{name}`
    pub async fn delete_key(&self, caller: &Caller, name: &str) -> Result<DeletedKeyBundle, AppError> {
        let now = self.now();
        let purge_at = now + i64::from(self.rules().recovery.days) * DAY;
        reach("before deleting a key");
        let turned = self.turn(caller, name, Turn::Delete { now, purge_at }).await?;
        reach("after deleting a key");
        let key = KeyRef { name: name.to_owned(), version: None };
        let (record, _) = turned.ok_or_else(|| not_found(&key))?;
        let deletion = self.deletion_of(&record.name, now, purge_at);
        Ok(DeletedKeyBundle { bundle: self.bundle(&record), deletion })
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
        let turned = self.turn(caller, name, Turn::Recover).await?;
        let (record, versions) = turned.ok_or_else(|| AppError::KeyNotFound(name.to_owned()))?;
        // A purge that was interrupted may have said in the HSM that they are gone.
        self.spare(&versions).await;
        Ok(self.bundle(&record))
    }

    /// `DELETE /deletedkeys/{name}`: the key is gone for good.
    pub async fn purge_key(&self, caller: &Caller, name: &str) -> Result<(), AppError> {
        if self.is_purge_protected().await? {
            let record = self.deleted_record(name).await?;
            let detail = json!({"caller": caller.id(), "operation": "purge"});
            return Err(self.refuse(&self.kid(&record), purge_protected(), detail).await);
        }
        let doomed = keys::deleted_versions(self.store.readers(), name).await?;
        self.doom(&doomed).await?;
        reach("before purging a key");
        let turned = self.turn(caller, name, Turn::Purge).await;
        reach("after purging a key");
        match turned {
            Ok(Some((_, versions))) => {
                self.bury(&versions).await;
                Ok(())
            }
            Ok(None) => {
                self.spare(&doomed).await;
                Err(AppError::KeyNotFound(name.to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether this service protects deleted keys, or another one on the same vault was started to.
    async fn is_purge_protected(&self) -> Result<bool, AppError> {
        if self.rules().recovery.purge_protection {
            return Ok(true);
        }
        let promised = promised(self.store.readers()).await?;
        Ok(promised.is_some_and(|promised| promised.purge_protection))
    }

    /// Turns a name's life and records it, all in one transaction: what is answered and logged is the key that was
    /// turned, however many others rotate, delete and recover the name at that moment, with the versions that a deleted name had. `None` if there is none to turn.
    async fn turn(
        &self,
        caller: &Caller,
        name: &str,
        turn: Turn,
    ) -> Result<Option<(KeyRecord, Vec<KeyRecord>)>, AppError> {
        let mut event = self.event(Decision::KeyChanged, "", None, Value::Null);
        let (name, caller, base_url) = (name.to_owned(), caller.id().to_owned(), self.base_url.clone());
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                let found = keys::find(&mut *connection, turn.among(), &name, None).await?;
                let Some(record) = found else { return Ok(None) };
                let versions = keys::deleted_versions(&mut *connection, &record.name).await?;
                turn.apply(connection, &record.name).await?;
                event.subject = kid(&base_url, &record);
                event.detail = key_detail(Some(&caller), turn.operation(), &record);
                decisions::append(connection, event).await?;
                Ok(Some((record, versions)))
            })
        });
        let turned = written.await?.into_inner();
        if let Some((record, _)) = &turned {
            self.opened_keys.forget(&record.name);
        }
        Ok(turned)
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
