//! What becomes of what a vault has sealed, when the vault moves: it stays as it is under the same master key, and is sealed
//! anew under another. A store that keeps its keys itself, such as a hardware module, would be a third kind here.

use super::move_vault::{End, master_key};
use super::{CommandError, refusals};
use crate::crypto::seal::{Binding, MasterKey, Sealed};
use crate::crypto::signer::Signer;
use crate::hsm::Reference;
use crate::store::meta;
use crate::store::tables::{Meta, Version};

/// The master keys of both ends.
pub(super) struct Seals {
    from: MasterKey,
    /// Of the target.
    pub to: MasterKey,
}

impl Seals {
    /// Loads both; that of the target is made if its configuration says so.
    pub async fn of(source: &mut End, target: &mut End) -> Result<Self, CommandError> {
        let id = meta::read(&mut source.connection, meta::MASTER_KEY_ID).await?;
        let id = id.ok_or_else(refusals::never_used)?;
        let from = master_key(&source.config, &String::from_utf8_lossy(&id))?;
        let settings = &target.config.master_key;
        let to = MasterKey::load(settings, None)?;
        Ok(Self { from, to })
    }

    /// Whether anything is sealed anew.
    pub fn is_anew(&self) -> bool {
        self.from.id() != self.to.id()
    }

    /// The version as the target has it.
    pub fn version(&self, version: Version) -> Result<Version, CommandError> {
        if !self.is_anew() {
            return Ok(version);
        }
        let binding = binding(&version);
        if Reference::open(&self.from, &Sealed::from_bytes(version.sealed.clone()), &binding).is_some() {
            return Err(refusals::moved_token_key(&version));
        }
        let private = self.from.open(&Sealed::from_bytes(version.sealed.clone()), &binding);
        let private = private.map_err(|_| refusals::moved_key(&version))?;
        let sealed = self.to.seal(&private, &binding).as_bytes().to_vec();
        Ok(Version { sealed, ..version })
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

    /// Whether both seal the same secret.
    pub fn agree(&self, source: &Version, target: &Version) -> bool {
        if !self.is_anew() {
            return source.sealed == target.sealed;
        }
        let open = |master: &MasterKey, version: &Version| {
            master.open(&Sealed::from_bytes(version.sealed.clone()), &binding(version)).ok()
        };
        match (open(&self.from, source), open(&self.to, target)) {
            (Some(source), Some(target)) => source.as_bytes() == target.as_bytes(),
            _ => false,
        }
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
