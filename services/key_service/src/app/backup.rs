//! `backup` and `restore`: a key with all versions as one opaque value.
//!
//! The value is encrypted under a key that is derived from the vault's sealing key, so it says nothing to anybody but this
//! vault, and opens nowhere else. The private keys in it are sealed as they lie in the database: they are not
//! opened on the way, and stay bound to name, version and release policy. Generations of guest states come along, and
//! those of a key that was purged meanwhile are remembered apart: a restored key never releases an older guest state.

use std::collections::BTreeMap;

use public_api::decision_log::Decision;
use public_api::key_operations::KeyBackup;
use public_api::keys::{KeyBundle, KeyReleasePolicy};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::keys::{KeyRef, not_found};
use super::{AppError, AppState};
use crate::crypto::ec::{Curve, EcPoint};
use crate::crypto::kind::{KeyType, PublicKey};
use crate::crypto::oct::OctBits;
use crate::crypto::rsa::PublicParts;
use crate::crypto::seal::Sealed;
use crate::store::keys::{self, KeyRecord, NameState};
use crate::store::{Connection, StoreError, decisions, releases, rotation};
use crate::token::caller::Caller;
use token_verifier::{Refusal, refusal};

/// Longest value, in bytes: its base64url still is a request body that is accepted.
const MAX_BACKUP: usize = 700_000;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    name: String,
    versions: Vec<Version>,
    rotation: Option<Rotation>,
    generations: Vec<(String, u64)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    policy: String,
    created: i64,
    updated: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    version: String,
    kty: String,
    public: Public,
    key_ops: Vec<String>,
    tags: BTreeMap<String, String>,
    enabled: bool,
    not_before: Option<i64>,
    expires: Option<i64>,
    created: i64,
    updated: i64,
    exportable: bool,
    policy: Option<KeyReleasePolicy>,
    #[serde(with = "public_api::encoding::base64url")]
    sealed: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Public {
    Rsa {
        #[serde(with = "public_api::encoding::base64url")]
        n: Vec<u8>,
        #[serde(with = "public_api::encoding::base64url")]
        e: Vec<u8>,
    },
    Ec {
        crv: String,
        #[serde(with = "public_api::encoding::base64url")]
        point: Vec<u8>,
    },
    Oct {
        bits: u32,
    },
}

impl AppState {
    /// `POST /keys/{name}/backup`
    pub async fn backup_key(&self, caller: &Caller, name: &str) -> Result<KeyBackup, AppError> {
        let key = KeyRef { name: name.to_owned(), version: None };
        let records = keys::versions(self.store.readers(), name).await?;
        let newest = records.last().ok_or_else(|| not_found(&key))?;
        if records.iter().any(|record| self.reference(record).is_some()) {
            let detail = json!({"caller": caller.id(), "operation": "backup"});
            return Err(self.refuse(&self.kid(newest), not_backed_up(), detail).await);
        }
        let event = self.key_event(caller, "backup", newest);
        let stored = rotation::find(self.store.readers(), name).await?;
        let content = Content {
            name: newest.name.clone(),
            rotation: stored.map(|stored| {
                let (created, updated) = (stored.created, stored.updated);
                Rotation { policy: stored.policy, created, updated }
            }),
            generations: releases::generations(self.store.readers(), name).await?,
            versions: records.iter().map(version).collect(),
        };
        let content = serde_json::to_vec(&content).expect("a backup has only string keys");
        let value = self.master.seal_backup(&content);
        if value.len() > MAX_BACKUP {
            let text = format!("Key {name} has too many versions for a backup that can be restored.");
            return Err(AppError::Conflict(text));
        }
        self.store.write(move |connection| Box::pin(decisions::append(connection, event))).await?;
        Ok(KeyBackup { value })
    }

    /// `POST /keys/restore`: only of a name that is free.
    pub async fn restore_key(&self, caller: &Caller, backup: &KeyBackup) -> Result<KeyBundle, AppError> {
        let content = self.opened(&backup.value).ok_or_else(|| {
            let text = "this is no backup of this vault, or it was changed";
            AppError::bad("value", text)
        })?;
        let records: Option<Vec<KeyRecord>> =
            content.versions.iter().map(|version| record(&content.name, version)).collect();
        let records = records.ok_or(StoreError::Corrupt("backup"))?;
        let newest = records.last().ok_or(StoreError::Corrupt("backup"))?;
        let bundle = self.bundle(newest);
        let detail = super::keys::key_detail(Some(caller.id()), "restore", newest);
        let event = self.event(Decision::KeyChanged, &self.kid(newest), None, detail);
        let now = self.now();
        let written = self.store.write(move |connection| {
            Box::pin(async move {
                if keys::name_state(&mut *connection, &content.name).await? != NameState::Free {
                    return Ok(Err(taken(&content.name)));
                }
                put_back(connection, &content, &records, now).await?;
                decisions::append(connection, event).await?;
                Ok(Ok(()))
            })
        });
        written.await?.into_inner()?;
        Ok(bundle)
    }

    fn opened(&self, value: &[u8]) -> Option<Content> {
        let content = self.master.open_backup(value).ok()?;
        serde_json::from_slice(&content).ok()
    }
}

/// Also for exportable keys: what makes a key extractable is its release policy, and a backup asks none.
fn not_backed_up() -> Refusal {
    let rule = "a key in a hardware security module leaves it by a release only";
    let remedy = "back up the HSM's token by its vendor's means, and the database with casemate-keys backup";
    let expected = "a key that is sealed in the database";
    refusal("HsmKeyNotBackedUp", "attributes.hsmPlatform", expected, "a key in an HSM", rule, remedy)
}

async fn put_back(
    connection: &mut Connection,
    content: &Content,
    records: &[KeyRecord],
    now: i64,
) -> Result<(), StoreError> {
    let mut generations: BTreeMap<String, u64> = content.generations.iter().cloned().collect();
    for record in records {
        keys::insert(connection, record).await?;
        for (vm, generation) in releases::retired_generations(connection, &record.version).await? {
            let known = generations.entry(vm).or_insert(generation);
            *known = generation.max(*known);
        }
    }
    for (vm, generation) in generations {
        releases::record_generation(connection, &content.name, &vm, generation, now).await?;
    }
    if let Some(Rotation { policy, created, updated }) = &content.rotation {
        rotation::put(connection, &content.name, policy, (*created, *updated)).await?;
    }
    Ok(())
}

fn taken(name: &str) -> AppError {
    let text = "exists already, live or deleted; a backup is restored only where its name is free.";
    AppError::Conflict(format!("Key {name} {text}"))
}

fn version(record: &KeyRecord) -> Version {
    let KeyRecord { version, key_ops, tags, policy, .. } = record.clone();
    Version {
        version,
        kty: record.key_type.name().to_owned(),
        public: match &record.public {
            PublicKey::Rsa(parts) => Public::Rsa { n: parts.modulus.clone(), e: parts.exponent.clone() },
            PublicKey::Ec(point) => {
                Public::Ec { crv: point.curve.name().to_owned(), point: point.uncompressed().to_vec() }
            }
            PublicKey::Oct(bits) => Public::Oct { bits: bits.number() },
        },
        key_ops,
        tags,
        enabled: record.enabled,
        not_before: record.not_before,
        expires: record.expires,
        created: record.created,
        updated: record.updated,
        exportable: record.exportable,
        policy,
        sealed: record.sealed.as_bytes().to_vec(),
    }
}

fn record(name: &str, version: &Version) -> Option<KeyRecord> {
    let public = match &version.public {
        Public::Rsa { n, e } => PublicKey::Rsa(PublicParts { modulus: n.clone(), exponent: e.clone() }),
        Public::Ec { crv, point } => {
            PublicKey::Ec(EcPoint::from_uncompressed(Curve::from_name(crv)?, point.clone())?)
        }
        Public::Oct { bits } => PublicKey::Oct(OctBits::from_number(*bits)?),
    };
    Some(KeyRecord {
        name: name.to_owned(),
        version: version.version.clone(),
        key_type: KeyType::from_name(&version.kty)?,
        public,
        key_ops: version.key_ops.clone(),
        tags: version.tags.clone(),
        enabled: version.enabled,
        not_before: version.not_before,
        expires: version.expires,
        created: version.created,
        updated: version.updated,
        revision: 0,
        exportable: version.exportable,
        policy: version.policy.clone(),
        sealed: Sealed::from_bytes(version.sealed.clone()),
    })
}
