//! Making, importing and reading keys.

use aws_lc_rs::digest;
use public_api::decision_log::Decision;
use public_api::encoding::to_base64url;
use public_api::jwk::Jwk;
use public_api::key_import::{KeyImportParameters, PrivateJwk};
use public_api::keys::{Deletion, KeyAttributes, KeyBundle, KeyCreateParameters, KeyItem};
use serde_json::{Value, json};
use uuid::Uuid;

use super::custody::Secret;
use super::validate::Properties;
use super::{AppError, AppState, reach, validate};
use crate::config::RecoveryConfig;
use crate::crypto::import;
use crate::crypto::kind::{self, Family, KeySpec, PublicKey};
use crate::crypto::seal::{Binding, PrivateKey, SealBroken, Sealed};
use crate::hsm::Reference;
use crate::store::decisions;
use crate::store::keys::{self, Among, KeyRecord, NameState};
use crate::token::caller::Caller;

/// A key: its secret and its public part.
pub(crate) type Material = (PrivateKey, PublicKey);

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
        let Properties { key_type, exportable, .. } = new.properties;
        let name = self.usable_name(name).await?;
        let material = self.made(new.spec, key_type, exportable).await?;
        self.add_version(caller, "create", name, new.properties, material).await
    }

    /// `PUT /keys/{name}`
    pub async fn import_key(
        &self,
        caller: &Caller,
        name: &str,
        parameters: KeyImportParameters,
        releasable: bool,
    ) -> Result<KeyBundle, AppError> {
        validate::name(name)?;
        let (properties, key) = checked_import(parameters, releasable)?;
        let Properties { key_type, exportable, .. } = properties;
        let material = tokio::task::spawn_blocking(move || read_key(key_type.family, &key)).await??;
        let name = self.usable_name(name).await?;
        let material = self.brought(material, key_type, exportable).await?;
        self.add_version(caller, "import", name, properties, material).await
    }

    /// A new key, from the pool if one is ready.
    pub(super) async fn generated(&self, spec: KeySpec) -> Result<Material, AppError> {
        let ready = match spec {
            KeySpec::Rsa(bits) => self.common.ready_keys.take(bits),
            KeySpec::Ec(_) | KeySpec::Oct(_) => None,
        };
        match ready {
            Some((private, public)) => Ok((private, PublicKey::Rsa(public))),
            None => Ok(tokio::task::spawn_blocking(move || kind::generate(spec)).await?),
        }
    }

    async fn add_version(
        &self,
        caller: &Caller,
        operation: &str,
        name: String,
        properties: Properties,
        material: (Secret, PublicKey),
    ) -> Result<KeyBundle, AppError> {
        let record = self.new_record(name, properties, material);
        let stored = record.clone();
        let bundle = self.bundle(&record);
        let event = self.key_event(caller, operation, &record);
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
        if let Err(refused) = written.await?.into_inner() {
            self.abandon(&stored).await;
            return Err(refused);
        }
        reach("after storing a key");
        self.keep(&stored).await;
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

    pub(super) fn new_record(
        &self,
        name: String,
        properties: Properties,
        (secret, public): (Secret, PublicKey),
    ) -> KeyRecord {
        let now = self.now();
        let mut record = KeyRecord {
            name,
            version: Uuid::new_v4().simple().to_string(),
            key_type: properties.key_type,
            public,
            key_ops: properties.key_ops,
            tags: properties.tags,
            enabled: properties.enabled,
            not_before: properties.not_before,
            expires: properties.expires,
            created: now,
            updated: now,
            revision: 0,
            exportable: properties.exportable,
            policy: properties.policy,
            sealed: Sealed::from_bytes(Vec::new()),
        };
        let bound = binding(&record);
        record.sealed = match secret {
            Secret::Sealed(private) => self.master.seal(&private, &bound),
            Secret::InToken(id) => Reference(id).seal(&self.master, &bound),
        };
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
            items.push((record.name.clone(), self.item(&record, kid, deletion)));
        }
        Ok(items)
    }

    /// `GET /keys/{name}/versions`
    pub async fn versions(&self, name: &str) -> Result<Vec<KeyItem>, AppError> {
        let records = keys::versions(self.store.readers(), name).await?;
        Ok(records.iter().map(|record| self.item(record, self.kid(record), None)).collect())
    }

    /// The private key of a record.
    pub(super) fn open_key(&self, record: &KeyRecord) -> Result<PrivateKey, SealBroken> {
        self.master.open(&record.sealed, &binding(record))
    }

    /// The key's id: its URL with the version.
    pub(super) fn kid(&self, record: &KeyRecord) -> String {
        kid(&self.base_url, record)
    }

    /// The public form of a record.
    pub(super) fn bundle(&self, record: &KeyRecord) -> KeyBundle {
        let key = Jwk { kid: Some(self.kid(record)), key_ops: record.key_ops.clone(), ..public_jwk(record) };
        let release_policy = record.policy.clone();
        KeyBundle {
            key,
            attributes: attributes(record, self.rules().recovery, self.hsm_platform(record)),
            tags: record.tags.clone(),
            release_policy,
        }
    }

    /// A record in a list.
    fn item(&self, record: &KeyRecord, kid: String, deletion: Option<Deletion>) -> KeyItem {
        let attributes = attributes(record, self.rules().recovery, self.hsm_platform(record));
        KeyItem { kid, attributes, tags: record.tags.clone(), deletion }
    }

    pub(super) fn key_event(&self, caller: &Caller, operation: &str, record: &KeyRecord) -> decisions::Event {
        let detail = key_detail(Some(caller.id()), operation, record);
        self.event(Decision::KeyChanged, &self.kid(record), None, detail)
    }
}

/// What an import says about its key, checked, and the key itself, not yet read.
pub(crate) fn checked_import(
    parameters: KeyImportParameters,
    releasable: bool,
) -> Result<(Properties, PrivateJwk), AppError> {
    let KeyImportParameters { hsm, key, attributes, tags, release_policy } = parameters;
    let wanted = validate::Wanted {
        key_type: validate::imported_type(&key.kty, hsm)?,
        key_ops: &key.key_ops,
        attributes: attributes.unwrap_or_default(),
        tags,
        policy: release_policy,
    };
    Ok((validate::properties(wanted, releasable)?, key))
}

/// The key of an import. Takes some milliseconds for RSA; call it where blocking is allowed.
pub(crate) fn read_key(family: Family, key: &PrivateJwk) -> Result<Material, AppError> {
    import::import(family, key).map_err(|bad| AppError::bad(format!("key.{}", bad.member), bad.reason))
}

/// The id of a record in the vault at `base_url`.
pub(super) fn kid(base_url: &str, record: &KeyRecord) -> String {
    format!("{base_url}/keys/{}/{}", record.name, record.version)
}

/// The public part; a symmetric key has none.
fn public_jwk(record: &KeyRecord) -> Jwk {
    let jwk = Jwk { kty: record.key_type.name().to_owned(), ..Jwk::default() };
    match &record.public {
        PublicKey::Rsa(parts) => {
            Jwk { n: Some(to_base64url(&parts.modulus)), e: Some(to_base64url(&parts.exponent)), ..jwk }
        }
        PublicKey::Ec(point) => {
            let (x, y) = point.coordinates();
            let crv = Some(point.curve.name().to_owned());
            Jwk { crv, x: Some(to_base64url(x)), y: Some(to_base64url(y)), ..jwk }
        }
        PublicKey::Oct(_) => jwk,
    }
}

/// What the log says about a change of a key.
pub(super) fn key_detail(caller: Option<&str>, operation: &str, record: &KeyRecord) -> Value {
    let policy = record.policy.as_ref();
    json!({
        "operation": operation,
        "caller": caller,
        "kty": record.key_type.name(),
        "enabled": record.enabled,
        "exportable": record.exportable,
        "releasePolicySha256": policy.map(|policy| hex::encode(digest::digest(&digest::SHA256, &policy.data))),
        "releasePolicyImmutable": policy.map(|policy| policy.immutable),
    })
}

/// What a stored private key is bound to.
pub(crate) fn binding(record: &KeyRecord) -> Vec<u8> {
    let policy = record.policy.as_ref();
    Binding {
        name: &record.name.to_ascii_lowercase(),
        version: &record.version,
        kty: record.key_type.name(),
        exportable: record.exportable,
        policy: policy.map(|policy| (policy.data.as_slice(), policy.immutable)),
    }
    .bytes()
}

fn attributes(record: &KeyRecord, recovery: RecoveryConfig, hsm_platform: Option<String>) -> KeyAttributes {
    KeyAttributes {
        enabled: Some(record.enabled),
        nbf: record.not_before,
        exp: record.expires,
        created: Some(record.created),
        updated: Some(record.updated),
        recoverable_days: Some(recovery.days),
        recovery_level: Some(recovery.level().to_owned()),
        exportable: Some(record.exportable),
        hsm_platform,
    }
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
