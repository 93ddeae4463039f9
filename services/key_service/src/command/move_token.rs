//! The token that a vault moves into: which versions go there, under which ids, and what becomes of their objects.
//!
//! ```text
//!   planned     nothing is marked yet; what cannot be moved is refused by name
//!   brought in  objects "made" under the target's master key, each proved to be its key; the source is the vault
//!   ...         the rows are copied, read back, and the source is left
//!   kept        the objects are "kept", and those that were there already have the target's master key in their labels
//! ```
//!
//! An object's id follows from the move, its version and the target's master key. So a second try finds what the first one
//! has brought in and makes no second object, and a move that is called off knows what it has to take out again. A key in
//! clear is here between the source's seal and the wrapping for the token, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::move_seal::{Custody, Seals};
use super::{CommandError, refusals};
use crate::app::custody::{family, lives_in_token};
use crate::app::keys::binding;
use crate::app::reach;
use crate::config::HsmConfig;
use crate::crypto::kind::{KeyType, public_part};
use crate::crypto::seal::{MasterKey, PrivateKey};
use crate::crypto::wrap;
use crate::hsm::{Hsm, HsmError, KeyId, Label, NewKey, Reference, State};
use crate::store::Connection;
use crate::store::keys::{self, KeyRecord};

/// Rows that are in memory at once.
const PAGE: u32 = 100;

/// The target's token, for one move.
pub(super) struct MoveToken {
    /// The token.
    pub hsm: Arc<Hsm>,
    all_keys: bool,
    moved: String,
}

impl MoveToken {
    /// Opens it.
    pub fn open(config: &HsmConfig, moved: &str) -> Result<Self, CommandError> {
        let hsm = Arc::new(Hsm::open(config)?);
        Ok(Self { hsm, all_keys: config.all_keys, moved: moved.to_owned() })
    }

    /// Whether keys of this type live in it.
    pub fn is_for(&self, key_type: KeyType) -> bool {
        lives_in_token(key_type, self.all_keys)
    }

    /// Under which id this move brings in the key that has this binding.
    pub fn id(&self, to: &MasterKey, binding: &[u8]) -> KeyId {
        KeyId::from_bytes(&to.moved_id(&self.moved, binding)).expect("an id has 16 bytes")
    }

    /// Destroys what this move has brought in; how many objects that were. Its rows are none, or those of a target that is
    /// no vault. What another state than "made" has is not this move's any more.
    pub async fn take_out(&self, source: &mut Connection, to: &MasterKey) -> Result<usize, CommandError> {
        let mut brought = BTreeSet::new();
        each(source, |record| {
            brought.insert(self.id(to, &binding(record)));
            Ok(())
        })
        .await?;
        let held = self.hsm.held(to.id().as_str())?;
        let ours = held.into_iter().filter(|one| one.label.state == State::Made && brought.contains(&one.id));
        let ids: BTreeSet<KeyId> = ours.map(|object| object.id).collect();
        ids.iter().try_for_each(|id| self.hsm.destroy(*id))?;
        Ok(ids.len())
    }

    fn bring(&self, record: &KeyRecord, id: KeyId, seals: &Seals) -> Result<(), CommandError> {
        let private = seals.from.open(&record.sealed, &binding(record));
        let private = private.map_err(|_| refusals::sealed(record))?;
        if public_part(&private, &record.public).as_ref() != Some(&record.public) {
            return Err(refusals::public_part(record));
        }
        if self.is_there(record, id, &private)? {
            return Ok(());
        }
        let label = label(&seals.to, jiff::Timestamp::now().as_second(), State::Made);
        let new = NewKey { label, extractable: record.exportable };
        let (kek, wrapped) = wrap::for_token(&private);
        let taken = self.hsm.import_as((id, record.public.clone()), new, kek, wrapped);
        taken.map_err(|error| refusals::not_taken(record, error))?;
        reach("a key of a move is in the token");
        if self.is_there(record, id, &private)? { Ok(()) } else { Err(refusals::not_the_key(record)) }
    }

    /// Whether the object is in the token, as protected as it should be, and proves to be the key.
    fn is_there(&self, record: &KeyRecord, id: KeyId, private: &PrivateKey) -> Result<bool, CommandError> {
        match self.hsm.holds(id, family(&record.public), record.exportable) {
            Ok(()) => Ok(self.hsm.is_key(id, &record.public, private)?),
            Err(HsmError::KeyMissing(_) | HsmError::KeyAmbiguous { .. } | HsmError::KeyUnprotected(_)) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn label(to: &MasterKey, made: i64, state: State) -> Label {
    Label { vault: to.id().as_str().to_owned(), made, state }
}

/// Refuses, before anything is marked, what cannot be moved: keys in a token that the target has not, and keys that the
/// target's token cannot take.
pub(super) async fn plan(source: &mut Connection, seals: &Seals) -> Result<(), CommandError> {
    let mut left_behind: (Option<KeyRecord>, usize) = (None, 0);
    each(source, |record| {
        if is_movable(record, seals)? {
            return Ok(());
        }
        left_behind.0.get_or_insert_with(|| record.clone());
        left_behind.1 += 1;
        Ok(())
    })
    .await?;
    match left_behind {
        (Some(first), count) => Err(refusals::left_behind(&first, count, seals.token.is_some())),
        (None, _) => Ok(()),
    }
}

/// No, if it lies in a token that is not the target's.
fn is_movable(record: &KeyRecord, seals: &Seals) -> Result<bool, CommandError> {
    let Some(token) = &seals.token else { return Ok(!matches!(seals.custody(record), Custody::Held(_))) };
    match seals.custody(record) {
        Custody::Sealed => Ok(true),
        Custody::Brought(_) => {
            let takes = token.hsm.takes(&record.public, record.exportable);
            takes.map(|()| true).map_err(|error| refusals::not_taken(record, error))
        }
        Custody::Held(id) => match token.hsm.holds(id, family(&record.public), record.exportable) {
            Ok(()) => Ok(true),
            Err(HsmError::KeyMissing(_)) => Ok(false),
            Err(error) => Err(refusals::token_object(record, error)),
        },
    }
}

/// Brings every version that lives in the target's token into it. What is there from an earlier try stays.
pub(super) async fn bring(source: &mut Connection, seals: &Seals) -> Result<(), CommandError> {
    let Some(token) = &seals.token else { return Ok(()) };
    each(source, |record| match seals.custody(record) {
        Custody::Brought(id) => token.bring(record, id, seals),
        Custody::Held(_) | Custody::Sealed => Ok(()),
    })
    .await?;
    reach("the keys of a move are in the token");
    Ok(())
}

/// Makes every object that a row of the target refers to the target's, once the source is left: "kept", and under its master
/// key. What else the source had in this token becomes the target's too, as it is, so that the target's sweep decides about
/// it. How many versions this move brought in.
pub(super) async fn keep(target: &mut Connection, seals: &Seals) -> Result<usize, CommandError> {
    let mut others = seals.objects_of_the_source()?;
    let mut brought = 0;
    each(target, |record| {
        let bound = binding(record);
        let Some(Reference(id)) = Reference::open(&seals.to, &record.sealed, &bound) else { return Ok(()) };
        let token = seals.token.as_ref().ok_or_else(|| refusals::no_token(record))?;
        brought += usize::from(id == token.id(&seals.to, &bound));
        others.remove(&id);
        // The configuration may name another token than it did when the source was left.
        let there = token.hsm.holds(id, family(&record.public), record.exportable);
        there.map_err(|error| refusals::token_object(record, error))?;
        Ok(token.hsm.relabel(id, label(&seals.to, record.created, State::Kept))?)
    })
    .await?;
    if let Some(token) = &seals.token {
        for (id, Label { made, state, .. }) in others {
            token.hsm.relabel(id, label(&seals.to, made, state))?;
        }
    }
    reach("the keys of a move are kept");
    Ok(brought)
}

impl Seals {
    /// What the target's token holds under the source's master key, if the target has another.
    fn objects_of_the_source(&self) -> Result<BTreeMap<KeyId, Label>, CommandError> {
        let Some(token) = self.token.as_ref().filter(|_| self.is_anew()) else { return Ok(BTreeMap::new()) };
        let held = token.hsm.held(self.from.id().as_str())?;
        Ok(held.into_iter().map(|object| (object.id, object.label)).collect())
    }
}

/// Each version of a database, deleted or not.
async fn each(
    connection: &mut Connection,
    mut work: impl FnMut(&KeyRecord) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut last = i64::MIN;
    loop {
        let page = keys::after_row(&mut *connection, last, PAGE).await?;
        let Some((row, _)) = page.last() else { return Ok(()) };
        last = *row;
        page.iter().try_for_each(|(_, record)| work(record))?;
    }
}
