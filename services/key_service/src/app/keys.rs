//! Making, reading and changing keys.

use aws_lc_rs::digest;
use public_api::decision_log::Decision;
use public_api::encoding::to_base64url;
use public_api::jwk::Jwk;
use public_api::keys::{
    Deletion, KeyAttributes, KeyBundle, KeyCreateParameters, KeyItem, KeyReleasePolicy, KeyUpdateParameters,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{AppError, AppState, reach, validate};
use crate::crypto::rsa::{self, PublicParts};
use crate::crypto::seal::{Binding, PrivateKey, SealBroken, Sealed};
use crate::store::decisions;
use crate::store::keys::{self, Among, KeyRecord, NameState};
use crate::token::caller::Caller;

/// Days for which a deleted key can be recovered.
pub const RECOVERABLE_DAYS: i32 = 90;
const RECOVERY_LEVEL: &str = "Recoverable+Purgeable";
/// How often a change that others overtake is made again.
const UPDATE_ATTEMPTS: u32 = 8;

/// Which version of which key a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// Name, any case.
    pub name: String,
    /// `None`: the newest.
    pub version: Option<String>,
}

impl AppState {
    /// `POST /keys/{name}/create`
    pub async fn create_key(
        &self,
        caller: &Caller,
        name: &str,
        parameters: KeyCreateParameters,
        releasable: bool,
    ) -> Result<KeyBundle, AppError> {
        validate::name(name)?;
        let new = validate::create(parameters, releasable)?;
        let bits = new.bits;
        let (private, public) = match self.ready_keys.take(bits) {
            Some(ready) => ready,
            None => tokio::task::spawn_blocking(move || rsa::generate(bits)).await?,
        };
        let name = self.usable_name(name).await?;
        let record = self.new_record(name, new, &private, public);
        let bundle = self.bundle(&record);
        let event = self.key_event(caller, "create", &record);
        reach("before storing a key");
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                if matches!(
                    keys::name_state(&mut *connection, &record.name).await?,
                    NameState::Deleted { .. }
                ) {
                    return Ok(Err(held_by_deleted(&record.name)));
                }
                keys::insert(connection, &record).await?;
                decisions::append(connection, event).await?;
                Ok(Ok(()))
            })
        });
        written.await?.into_inner()?;
        reach("after storing a key");
        Ok(bundle)
    }

    /// The spelling under which a name is stored, if it can take a new version.
    async fn usable_name(&self, name: &str) -> Result<String, AppError> {
        match keys::name_state(self.store.readers(), name).await? {
            NameState::Deleted { .. } => Err(held_by_deleted(name)),
            NameState::Free => Ok(name.to_owned()),
            NameState::Live => {
                let stored = keys::find(self.store.readers(), Among::Live, name, None).await?;
                Ok(stored.map_or_else(|| name.to_owned(), |record| record.name))
            }
        }
    }

    fn new_record(
        &self,
        name: String,
        new: validate::NewKey,
        private: &PrivateKey,
        public: PublicParts,
    ) -> KeyRecord {
        let now = self.now();
        let mut record = KeyRecord {
            name,
            version: Uuid::new_v4().simple().to_string(),
            kty: new.kty.to_owned(),
            modulus: public.modulus,
            exponent: public.exponent,
            key_ops: new.key_ops,
            tags: new.tags,
            enabled: new.enabled,
            not_before: new.not_before,
            expires: new.expires,
            created: now,
            updated: now,
            revision: 0,
            exportable: new.exportable,
            policy: new.policy,
            sealed: Sealed::from_bytes(Vec::new()),
        };
        record.sealed = self.master.seal(private, &binding(&record));
        record
    }

    /// `GET /keys/{name}[/{version}]`
    pub async fn key(&self, key: &KeyRef) -> Result<KeyBundle, AppError> {
        Ok(self.bundle(&self.record(key).await?))
    }

    /// The stored key, or the error that says there is none.
    pub(super) async fn record(&self, key: &KeyRef) -> Result<KeyRecord, AppError> {
        let found = keys::find(self.store.readers(), Among::Live, &key.name, key.version.as_deref()).await?;
        found.ok_or_else(|| not_found(key))
    }

    /// `GET /keys` or `GET /deletedkeys`: up to `limit` keys after the name `after`.
    pub async fn keys(
        &self,
        among: Among,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(String, KeyItem)>, AppError> {
        let records = keys::newest(self.store.readers(), among, after, limit).await?;
        let mut items = Vec::with_capacity(records.len());
        for record in records {
            let deletion = match among {
                Among::Live => None,
                Among::Deleted => self.deletion(&record.name).await?,
            };
            let kid = format!("{}/keys/{}", self.base_url, record.name);
            items.push((record.name.clone(), item(&record, kid, deletion)));
        }
        Ok(items)
    }

    /// `GET /keys/{name}/versions`
    pub async fn versions(&self, name: &str) -> Result<Vec<KeyItem>, AppError> {
        let records = keys::versions(self.store.readers(), name).await?;
        Ok(records.iter().map(|record| item(record, self.kid(record), None)).collect())
    }

    /// `PATCH /keys/{name}[/{version}]`
    ///
    /// A change that another one overtook is made again on what the other left, so that none undoes another.
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
        let written = self.store.write(move |connection| {
            Box::pin(async move {
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
            Some(ops) => record.key_ops = validate::key_ops(ops)?,
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
        let private = self.open_key(record)?;
        record.policy = Some(new);
        record.sealed = self.master.seal(&private, &binding(record));
        Ok(true)
    }

    /// The private key of a record.
    pub(super) fn open_key(&self, record: &KeyRecord) -> Result<PrivateKey, SealBroken> {
        self.master.open(&record.sealed, &binding(record))
    }

    /// The key's id: its URL with the version.
    pub(super) fn kid(&self, record: &KeyRecord) -> String {
        format!("{}/keys/{}/{}", self.base_url, record.name, record.version)
    }

    /// The public form of a record.
    pub(super) fn bundle(&self, record: &KeyRecord) -> KeyBundle {
        let key = Jwk {
            kid: Some(self.kid(record)),
            kty: record.kty.clone(),
            key_ops: record.key_ops.clone(),
            n: Some(to_base64url(&record.modulus)),
            e: Some(to_base64url(&record.exponent)),
            ..Jwk::default()
        };
        let release_policy = record.policy.clone();
        KeyBundle { key, attributes: attributes(record), tags: record.tags.clone(), release_policy }
    }

    pub(super) fn key_event(&self, caller: &Caller, operation: &str, record: &KeyRecord) -> decisions::Event {
        let detail = key_detail(Some(caller.id()), operation, record);
        self.event(Decision::KeyChanged, &self.kid(record), None, detail)
    }
}

/// What the log says about a change of a key.
fn key_detail(caller: Option<&str>, operation: &str, record: &KeyRecord) -> Value {
    let policy = record.policy.as_ref();
    json!({
        "operation": operation,
        "caller": caller,
        "kty": record.kty,
        "enabled": record.enabled,
        "exportable": record.exportable,
        "releasePolicySha256": policy.map(|policy| hex::encode(digest::digest(&digest::SHA256, &policy.data))),
        "releasePolicyImmutable": policy.map(|policy| policy.immutable),
    })
}

/// What a stored private key is bound to.
fn binding(record: &KeyRecord) -> Vec<u8> {
    let policy = record.policy.as_ref();
    Binding {
        name: &record.name.to_ascii_lowercase(),
        version: &record.version,
        kty: &record.kty,
        exportable: record.exportable,
        policy: policy.map(|policy| (policy.data.as_slice(), policy.immutable)),
    }
    .bytes()
}

fn attributes(record: &KeyRecord) -> KeyAttributes {
    KeyAttributes {
        enabled: Some(record.enabled),
        nbf: record.not_before,
        exp: record.expires,
        created: Some(record.created),
        updated: Some(record.updated),
        recoverable_days: Some(RECOVERABLE_DAYS),
        recovery_level: Some(RECOVERY_LEVEL.to_owned()),
        exportable: Some(record.exportable),
    }
}

fn item(record: &KeyRecord, kid: String, deletion: Option<Deletion>) -> KeyItem {
    KeyItem { kid, attributes: attributes(record), tags: record.tags.clone(), deletion }
}

pub(super) fn not_found(key: &KeyRef) -> AppError {
    AppError::KeyNotFound(match &key.version {
        Some(version) => format!("{}/{version}", key.name),
        None => key.name.clone(),
    })
}

fn held_by_deleted(name: &str) -> AppError {
    AppError::Conflict(format!(
        "Key {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the key can only be recovered or purged."
    ))
}
