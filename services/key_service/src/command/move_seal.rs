//! What becomes of what a vault has sealed, when the vault moves: it stays as it is under the same master key, and is sealed
//! anew under another. A key that the target keeps in its token is a sealed reference there: see [`super::move_token`].

use super::move_token::MoveToken;
use super::move_vault::{End, master_key};
use super::{CommandError, refusals};
use crate::app::keys;
use crate::config::{Config, HsmConfig};
use crate::crypto::kind::KeyType;
use crate::crypto::seal::{Binding, MasterKey, Sealed};
use crate::crypto::signer::Signer;
use crate::hsm::{KeyId, Reference};
use crate::store::keys::KeyRecord;
use crate::store::meta;
use crate::store::tables::{Meta, Version};

/// Where the target keeps the secret of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Custody {
    /// In the database, as the source does.
    Sealed,
    /// In the token where it lies already.
    Held(KeyId),
    /// In the token that it is brought into.
    Brought(KeyId),
}

/// The master keys of both ends, and the token of the target.
pub(super) struct Seals {
    /// Of the source.
    pub from: MasterKey,
    /// Of the target.
    pub to: MasterKey,
    /// Of the target, if it has one.
    pub token: Option<MoveToken>,
}

impl Seals {
    /// Loads both; that of the target is made if its configuration says so.
    pub async fn of(source: &mut End, target: &End, moved: &str) -> Result<Self, CommandError> {
        let id = meta::read(&mut source.connection, meta::MASTER_KEY_ID).await?;
        let id = id.ok_or_else(refusals::never_used)?;
        let from = master_key(&source.config, &String::from_utf8_lossy(&id))?;
        let settings = &target.config.master_key;
        let to = MasterKey::load(settings, None)?;
        let token = target.config.hsm.as_ref().map(|hsm| MoveToken::open(hsm, moved)).transpose()?;
        Ok(Self { from, to, token })
    }

    /// Where the target keeps this key of the source.
    pub fn custody(&self, record: &KeyRecord) -> Custody {
        self.custody_of(Some(record.key_type), &record.sealed, &keys::binding(record))
    }

    fn custody_of(&self, key_type: Option<KeyType>, sealed: &Sealed, binding: &[u8]) -> Custody {
        if let Some(Reference(id)) = Reference::open(&self.from, sealed, binding) {
            return Custody::Held(id);
        }
        let token = self.token.as_ref().filter(|token| key_type.is_some_and(|kind| token.is_for(kind)));
        token.map_or(Custody::Sealed, |token| Custody::Brought(token.id(&self.to, binding)))
    }

    /// Whether anything is sealed anew.
    pub fn is_anew(&self) -> bool {
        self.from.id() != self.to.id()
    }

    /// The version as the target has it.
    pub fn version(&self, version: Version) -> Result<Version, CommandError> {
        let binding = binding(&version);
        let stored = Sealed::from_bytes(version.sealed.clone());
        let sealed = match self.custody_of(KeyType::from_name(&version.kty), &stored, &binding) {
            Custody::Brought(id) => Reference(id).seal(&self.to, &binding),
            _ if !self.is_anew() => stored,
            Custody::Held(id) => Reference(id).seal(&self.to, &binding),
            Custody::Sealed => {
                let private = self.from.open(&stored, &binding).map_err(|_| refusals::moved_key(&version))?;
                self.to.seal(&private, &binding)
            }
        };
        Ok(Version { sealed: sealed.as_bytes().to_vec(), ..version })
    }

    /// The value as the target has it; nothing for what belongs to the source alone.
    pub fn value(&self, value: Meta) -> Result<Option<Meta>, CommandError> {
        let Meta { name, value } = value;
        let value = match name.as_str() {
            meta::MOVE | meta::READINESS => return Ok(None),
            meta::MASTER_KEY_ID => self.to.id().as_str().as_bytes().to_vec(),
            meta::SIGNING_IDENTITY if self.is_anew() => Signer::sealed_anew(&value, &self.from, &self.to)
                .map_err(|error| refusals::signing_identity(&error))?,
            _ => value,
        };
        Ok(Some(Meta { name, value }))
    }

    /// Whether the target's version holds what it is to hold of the source's.
    pub fn agree(&self, source: &Version, target: &Version) -> bool {
        let (bound, stored) = (binding(source), Sealed::from_bytes(source.sealed.clone()));
        let (bound_there, there) = (binding(target), Sealed::from_bytes(target.sealed.clone()));
        match self.custody_of(KeyType::from_name(&source.kty), &stored, &bound) {
            Custody::Held(id) | Custody::Brought(id) => {
                Reference::open(&self.to, &there, &bound_there) == Some(Reference(id))
            }
            Custody::Sealed if !self.is_anew() => stored == there,
            Custody::Sealed => match (self.from.open(&stored, &bound), self.to.open(&there, &bound_there)) {
                (Ok(source), Ok(target)) => source.as_bytes() == target.as_bytes(),
                _ => false,
            },
        }
    }
}

/// Where a target keeps keys, in words: its master key and its token.
pub(super) fn keeps(master: &MasterKey, target: &Config) -> String {
    let master = master.id().as_str();
    match &target.hsm {
        Some(HsmConfig { token, all_keys, .. }) => {
            format!("master key {master}, token {token:?}, all_keys = {all_keys}")
        }
        None => format!("master key {master}, no token"),
    }
}

fn binding(version: &Version) -> Vec<u8> {
    let policy = version.policy.as_deref().map(|data| (data, version.policy_immutable));
    Binding {
        name: &version.name,
        version: &version.version,
        kty: &version.kty,
        exportable: version.exportable,
        policy,
    }
    .bytes()
}
