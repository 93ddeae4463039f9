//! Renewing a key: on demand, and when its rotation policy says so. A new version is like the one before it, with the
//! same type, size, operations, tags, exportability and release policy, and a new secret.

use public_api::decision_log::Decision;
use public_api::key_rotation::{KeyRotationPolicy, LifetimeAction, LifetimeActionType};
use public_api::keys::KeyBundle;
use serde_json::json;

use super::keys::{KeyRef, not_found};
use super::schedule::{self, Schedule};
use super::validate::Properties;
use super::{AppError, AppState, reach};
use crate::crypto::error::CryptoError;
use crate::store::keys::{self, Among, KeyRecord, NameState};
use crate::store::rotation::StoredPolicy;
use crate::store::{StoreError, decisions, rotation};
use crate::token::caller::Caller;

impl AppState {
    /// `POST /keys/{name}/rotate`
    pub async fn rotate_key(&self, caller: &Caller, name: &str) -> Result<KeyBundle, AppError> {
        let key = KeyRef { name: name.to_owned(), version: None };
        let old = self.record(&key).await?;
        let schedule = match rotation::find(self.store.readers(), name).await? {
            Some(stored) => Schedule::parse(&parsed(&stored)?, self.now())?,
            None => Schedule::default(),
        };
        let new = self.next_version(&old, &schedule).await?;
        let bundle = self.bundle(&new);
        let event = self.key_event(caller, "rotate", &new);
        reach("before storing a key");
        let stored = self.store_version(None, new, event).await?;
        reach("after storing a key");
        match stored {
            Stored::Yes => Ok(bundle),
            Stored::NameGone => Err(not_found(&key)),
            Stored::KeyChanged => {
                Err(AppError::Conflict(format!("Key {name} was changed while it was renewed; try again.")))
            }
        }
    }

    /// A record like `old` with a new key.
    async fn next_version(&self, old: &KeyRecord, schedule: &Schedule) -> Result<KeyRecord, AppError> {
        let spec = old.public.spec().ok_or(AppError::Key(CryptoError::PublicKey))?;
        let material = self.made(spec, old.key_type, old.exportable).await?;
        let properties = Properties {
            key_type: old.key_type,
            key_ops: old.key_ops.clone(),
            enabled: old.enabled,
            not_before: None,
            expires: schedule.expires(self.now()),
            exportable: old.exportable,
            tags: old.tags.clone(),
            policy: old.policy.clone(),
        };
        Ok(self.new_record(old.name.clone(), properties, material))
    }

    /// Stores a version of a live name, if the newest one still is what the new one was made like: a release policy that
    /// was changed meanwhile would be undone otherwise. With `behind`, only that version may be the newest.
    async fn store_version(
        &self,
        behind: Option<String>,
        record: KeyRecord,
        event: decisions::Event,
    ) -> Result<Stored, AppError> {
        let new = record.clone();
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                let newest = keys::find(&mut *connection, Among::Live, &record.name, None).await?;
                let Some(newest) = newest else { return Ok(Stored::NameGone) };
                if behind.is_some_and(|version| version != newest.version) || !are_alike(&newest, &record) {
                    return Ok(Stored::KeyChanged);
                }
                keys::insert(connection, &record).await?;
                decisions::append(connection, event).await?;
                Ok(Stored::Yes)
            })
        });
        let stored = written.await?.into_inner();
        match stored {
            Stored::Yes => self.keep(&new).await,
            Stored::NameGone | Stored::KeyChanged => self.abandon(&new).await,
        }
        Ok(stored)
    }

    /// `GET /keys/{name}/rotationpolicy`
    pub async fn rotation_policy(&self, name: &str) -> Result<KeyRotationPolicy, AppError> {
        let record = self.record(&KeyRef { name: name.to_owned(), version: None }).await?;
        let stored = rotation::find(self.store.readers(), name).await?;
        let policy = stored.as_ref().map(parsed).transpose()?.unwrap_or_else(schedule::default_policy);
        Ok(self.shown(&record.name, policy))
    }

    fn shown(&self, name: &str, policy: KeyRotationPolicy) -> KeyRotationPolicy {
        KeyRotationPolicy { id: Some(format!("{}/keys/{name}/rotationpolicy", self.base_url)), ..policy }
    }

    /// `PUT /keys/{name}/rotationpolicy`
    pub async fn set_rotation_policy(
        &self,
        caller: &Caller,
        name: &str,
        policy: KeyRotationPolicy,
    ) -> Result<KeyRotationPolicy, AppError> {
        let key = KeyRef { name: name.to_owned(), version: None };
        let record = self.record(&key).await?;
        let now = self.now();
        Schedule::parse(&policy, now)?;
        let mut policy = usual(policy);
        let before = rotation::find(self.store.readers(), name).await?;
        policy.attributes.created = Some(before.map_or(now, |stored| stored.created));
        policy.attributes.updated = Some(now);
        let text = serde_json::to_string(&policy).expect("a policy has only string keys");
        let detail = json!({"operation": "setRotationPolicy", "caller": caller.id(), "policy": policy});
        let subject = format!("{}/keys/{}", self.base_url, record.name);
        let event = self.event(Decision::PolicyChanged, &subject, None, detail);
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                if keys::name_state(&mut *connection, &record.name).await? != NameState::Live {
                    return Ok(Err(not_found(&key)));
                }
                rotation::put(connection, &record.name, &text, (now, now)).await?;
                decisions::append(connection, event).await?;
                Ok(Ok(record.name))
            })
        });
        let name = written.await?.into_inner()?;
        Ok(self.shown(&name, policy))
    }

    /// Does what is due for one name. Returns whether a new version was made.
    pub async fn follow_policy(&self, stored: &StoredPolicy) -> Result<bool, AppError> {
        let now = self.now();
        let schedule = Schedule::parse(&parsed(stored)?, now)?;
        let newest = keys::find(self.store.readers(), Among::Live, &stored.name, None).await?;
        let Some(newest) = newest.filter(|record| record.enabled) else { return Ok(false) };
        let due = schedule.due(newest.created, newest.expires, now);
        if due.notify && stored.notified.as_ref() != Some(&newest.version) {
            self.note_near_expiry(&newest).await?;
        }
        if !due.rotate {
            return Ok(false);
        }
        let new = self.next_version(&newest, &schedule).await?;
        let detail = super::keys::key_detail(None, "scheduledRotate", &new);
        let event = self.event(Decision::KeyChanged, &self.kid(&new), None, detail);
        Ok(self.store_version(Some(newest.version), new, event).await? == Stored::Yes)
    }

    /// One entry a version: its end is near.
    async fn note_near_expiry(&self, record: &KeyRecord) -> Result<(), AppError> {
        let detail = json!({"operation": "nearExpiry", "expires": record.expires});
        let event = self.event(Decision::KeyChanged, &self.kid(record), None, detail);
        let (name, version) = (record.name.clone(), record.version.clone());
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                if rotation::notified(connection, &name, &version).await? {
                    decisions::append(connection, event).await?;
                }
                Ok(())
            })
        });
        written.await?;
        Ok(())
    }
}

/// What became of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Yes,
    /// The name was deleted meanwhile.
    NameGone,
    /// Something that a new version takes over was changed meanwhile.
    KeyChanged,
}

/// Whether everything that a new version takes over is the same.
fn are_alike(newest: &KeyRecord, new: &KeyRecord) -> bool {
    let KeyRecord { key_type, public, key_ops, tags, enabled, exportable, policy, .. } = new;
    newest.key_type == *key_type
        && newest.public.spec() == public.spec()
        && newest.key_ops == *key_ops
        && newest.tags == *tags
        && newest.enabled == *enabled
        && newest.exportable == *exportable
        && newest.policy == *policy
}

/// The spelling that Key Vault answers, without what the service sets itself.
fn usual(policy: KeyRotationPolicy) -> KeyRotationPolicy {
    let actions = policy.lifetime_actions.into_iter().map(|LifetimeAction { trigger, action }| {
        let kind = schedule::kind(&action.kind).map_or(action.kind.clone(), str::to_owned);
        LifetimeAction { trigger, action: LifetimeActionType { kind } }
    });
    KeyRotationPolicy { id: None, lifetime_actions: actions.collect(), attributes: policy.attributes }
}

fn parsed(stored: &StoredPolicy) -> Result<KeyRotationPolicy, StoreError> {
    serde_json::from_str(&stored.policy).map_err(|_| StoreError::Corrupt("rotation policy"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use public_api::keys::KeyReleasePolicy;

    use super::*;
    use crate::crypto::kind::{KeyType, PublicKey};
    use crate::crypto::oct::OctBits;
    use crate::crypto::seal::Sealed;

    fn record() -> KeyRecord {
        KeyRecord {
            name: "k".to_owned(),
            version: "1".to_owned(),
            key_type: KeyType::from_name("oct-HSM").unwrap(),
            public: PublicKey::Oct(OctBits::from_number(256).unwrap()),
            key_ops: vec!["wrapKey".to_owned()],
            tags: BTreeMap::new(),
            enabled: true,
            not_before: None,
            expires: None,
            created: 1,
            updated: 1,
            revision: 0,
            exportable: true,
            policy: Some(policy(b"{}")),
            sealed: Sealed::from_bytes(vec![1]),
        }
    }

    fn policy(data: &[u8]) -> KeyReleasePolicy {
        KeyReleasePolicy { content_type: None, data: data.to_vec(), immutable: false }
    }

    #[test]
    fn a_key_that_was_changed_while_it_was_renewed_is_another() {
        let renewed = KeyRecord {
            version: "2".to_owned(),
            expires: Some(9),
            created: 5,
            updated: 5,
            revision: 3,
            sealed: Sealed::from_bytes(vec![2]),
            ..record()
        };
        assert!(are_alike(&record(), &renewed), "a new version has its own dates and its own secret");
        let changes: [fn(&mut KeyRecord); 7] = [
            |newest| newest.policy = Some(policy(b"{ }")),
            |newest| newest.policy = None,
            |newest| newest.exportable = false,
            |newest| newest.enabled = false,
            |newest| newest.key_ops.clear(),
            |newest| newest.tags = BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            |newest| newest.public = PublicKey::Oct(OctBits::from_number(128).unwrap()),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut newest = record();
            change(&mut newest);
            assert!(!are_alike(&newest, &renewed), "change {number}");
        }
    }
}
