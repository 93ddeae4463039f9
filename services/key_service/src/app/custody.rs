//! Where the secret of a key lies: sealed in the database, or in the token of a hardware security module.
//!
//! A key in the token is two things, an object there and a row here, and no transaction spans both. What is done in which
//! order, so that a crash at any step loses no key and leaves none that nobody knows of:
//!
//! ```text
//!   making:  object, label "made" --> row committed --> label "kept"
//!   purging: label "gone" --> rows deleted --> object destroyed
//! ```
//!
//! A vault that is moved into a token makes its objects in the same order (`command::move_token`): "kept" comes when the source
//! is left for good.
//!
//! [`AppState::sweep`] finishes what a crash left: an object "made" an hour ago without a row, and one "gone" without a row, are
//! destroyed; an object "made" with a row is "kept". One that is "kept" without a row is told and left alone: whoever put
//! an older copy of the database back finds every key that the copy does not know still in the token.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::keys::{Material, binding};
use super::{AppError, AppState};
use crate::chain;
use crate::crypto::kind::{Family, KeySpec, KeyType, PublicKey};
use crate::crypto::seal::PrivateKey;
use crate::crypto::wrap;
use crate::hsm::{Held, Hsm, HsmError, KeyId, Label, NewKey, Reference, State};
use crate::store::keys::{self, KeyRecord};

/// For this long an object without a row may be one that another replica is about to store.
const GRACE: i64 = 3600;
/// Rows that are in memory at once.
const PAGE: u32 = 500;

/// The secret of a new key.
pub(crate) enum Secret {
    /// To be sealed.
    Sealed(PrivateKey),
    /// In the token already.
    InToken(KeyId),
}

/// A key in the token.
#[derive(Clone)]
pub(crate) struct TokenKey {
    pub hsm: Arc<Hsm>,
    pub id: KeyId,
}

/// What a sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects that are this vault's.
    pub objects: usize,
    /// Destroyed, by CKA_ID.
    pub destroyed: Vec<String>,
    /// Kept once, and without a row now.
    pub unknown: Vec<String>,
    /// Rows whose object is not there.
    pub missing: Vec<String>,
}

impl AppState {
    /// The token, if new keys of this type live there.
    fn token_for(&self, key_type: KeyType) -> Option<Arc<Hsm>> {
        self.common.hsm.as_ref().filter(|_| lives_in_token(key_type, self.common.all_keys_in_hsm)).cloned()
    }

    /// The token's key that a record refers to; nothing if its secret is sealed in the database.
    pub(super) fn in_token(&self, record: &KeyRecord) -> Result<Option<TokenKey>, HsmError> {
        let Some(Reference(id)) = self.reference(record) else { return Ok(None) };
        let hsm = self.common.hsm.clone().ok_or(HsmError::NotConfigured)?;
        Ok(Some(TokenKey { hsm, id }))
    }

    pub(super) fn reference(&self, record: &KeyRecord) -> Option<Reference> {
        Reference::open(&self.master, &record.sealed, &binding(record))
    }

    /// `hsmPlatform`: what the token says it is; nothing for a key that is sealed in the database.
    pub(super) fn hsm_platform(&self, record: &KeyRecord) -> Option<String> {
        self.reference(record)?;
        Some(self.common.hsm.as_ref().map_or("PKCS#11", |hsm| hsm.platform()).to_owned())
    }

    fn new_object(&self, exportable: bool) -> NewKey {
        NewKey { label: self.label(self.now(), State::Made), extractable: exportable }
    }

    fn label(&self, made: i64, state: State) -> Label {
        Label { vault: self.master.id().as_str().to_owned(), made, state }
    }

    /// A new key where keys of its type live.
    pub(super) async fn made(
        &self,
        spec: KeySpec,
        key_type: KeyType,
        exportable: bool,
    ) -> Result<(Secret, PublicKey), AppError> {
        let Some(hsm) = self.token_for(key_type) else {
            let (private, public) = self.generated(spec).await?;
            return Ok((Secret::Sealed(private), public));
        };
        let new = self.new_object(exportable);
        let made = tokio::task::spawn_blocking(move || hsm.generate(spec, new)).await?;
        let (id, public) = made?;
        Ok((Secret::InToken(id), public))
    }

    /// A key that was brought along, put where keys of its type live.
    pub(super) async fn brought(
        &self,
        (private, public): Material,
        key_type: KeyType,
        exportable: bool,
    ) -> Result<(Secret, PublicKey), AppError> {
        let Some(hsm) = self.token_for(key_type) else { return Ok((Secret::Sealed(private), public)) };
        let new = self.new_object(exportable);
        let taken = tokio::task::spawn_blocking(move || {
            let (kek, wrapped) = wrap::for_token(&private);
            let id = hsm.import(public.clone(), new, kek, wrapped)?;
            if !hsm.signs_for(id, &public)? {
                return Err(HsmError::Answer("a signature by another key than the one that was brought in"));
            }
            Ok::<_, HsmError>((Secret::InToken(id), public))
        });
        Ok(taken.await??)
    }

    /// The row of this key is on the disk. If its label cannot be changed now, the sweep does it.
    pub(super) async fn keep(&self, record: &KeyRecord) {
        self.relabelled(record, State::Kept).await.unwrap_or_else(|error| {
            tracing::warn!(
                error = chain(&error),
                "a key's label in the HSM stays as it is until the next sweep"
            );
        });
    }

    async fn relabelled(&self, record: &KeyRecord, state: State) -> Result<(), AppError> {
        let Some(TokenKey { hsm, id }) = self.in_token(record)? else { return Ok(()) };
        let label = self.label(record.created, state);
        Ok(tokio::task::spawn_blocking(move || hsm.relabel(id, label)).await??)
    }

    /// The row of this key was not stored, and will not be. What cannot be destroyed now the sweep destroys.
    pub(super) async fn abandon(&self, record: &KeyRecord) {
        self.destroyed(record).await.unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "a key without a row stays in the HSM until a later sweep");
        });
    }

    async fn destroyed(&self, record: &KeyRecord) -> Result<(), AppError> {
        let Some(TokenKey { hsm, id }) = self.in_token(record)? else { return Ok(()) };
        Ok(tokio::task::spawn_blocking(move || hsm.destroy(id)).await??)
    }

    /// Says in the token that these keys' rows are about to go; without that nothing is purged. Fails if the token does
    /// not answer: what is told to be gone must be.
    pub(crate) async fn doom(&self, records: &[KeyRecord]) -> Result<(), AppError> {
        for record in records {
            self.relabelled(record, State::Gone).await?;
        }
        Ok(())
    }

    /// Destroys the objects of rows that are gone. If the token fails here, the labels tell the next sweep.
    pub(crate) async fn bury(&self, records: &[KeyRecord]) {
        for record in records {
            self.abandon(record).await;
        }
    }

    /// Takes a doom back.
    pub(crate) async fn spare(&self, records: &[KeyRecord]) {
        for record in records {
            self.keep(record).await;
        }
    }

    /// Whether there is a token.
    pub(crate) fn has_hsm(&self) -> bool {
        self.common.hsm.is_some()
    }

    /// Destroys every object of a named vault of this installation, whose database is about to go. Fails if the token does
    /// not answer: what is told to be gone must be.
    pub(crate) async fn bury_vault(&self, id: &str) -> Result<(), AppError> {
        let Some(hsm) = self.common.hsm.clone() else { return Ok(()) };
        let vault = self.master.for_vault(id).id().as_str().to_owned();
        let work = move || hsm.held(&vault)?.into_iter().try_for_each(|object| hsm.destroy(object.id));
        Ok(tokio::task::spawn_blocking(work).await??)
    }

    /// Brings token and database together; nothing without a token.
    pub async fn sweep(&self) -> Result<Swept, AppError> {
        let Some(hsm) = self.common.hsm.clone() else { return Ok(Swept::default()) };
        let (lister, vault) = (Arc::clone(&hsm), self.master.id().as_str().to_owned());
        // Objects before rows: a key that is stored in between is seen in both.
        let held = tokio::task::spawn_blocking(move || lister.held(&vault)).await??;
        let referred = self.referred().await?;
        let mut swept = Swept { objects: held.len(), ..Swept::default() };
        for object in &held {
            self.settle_object(&hsm, object, referred.contains(&object.id), &mut swept).await?;
        }
        let present: BTreeSet<KeyId> = held.iter().map(|object| object.id).collect();
        swept.missing = referred.difference(&present).map(KeyId::text).collect();
        Ok(swept)
    }

    async fn settle_object(
        &self,
        hsm: &Arc<Hsm>,
        object: &Held,
        has_row: bool,
        swept: &mut Swept,
    ) -> Result<(), AppError> {
        let Held { id, label } = object.clone();
        let hsm = Arc::clone(hsm);
        match fate(&label, has_row, self.now()) {
            Fate::Stays => {}
            Fate::Unknown => swept.unknown.push(id.text()),
            Fate::IsKept => {
                let label = Label { state: State::Kept, ..label };
                tokio::task::spawn_blocking(move || hsm.relabel(id, label)).await??;
            }
            Fate::IsDestroyed => {
                tokio::task::spawn_blocking(move || hsm.destroy(id)).await??;
                swept.destroyed.push(id.text());
            }
        }
        Ok(())
    }

    /// Every id that a row refers to, of live and of deleted names.
    async fn referred(&self) -> Result<BTreeSet<KeyId>, AppError> {
        let (mut referred, mut last) = (BTreeSet::new(), i64::MIN);
        loop {
            let page = keys::after_row(self.store.readers(), last, PAGE).await?;
            let Some((row, _)) = page.last() else { return Ok(referred) };
            last = *row;
            referred
                .extend(page.iter().filter_map(|(_, record)| self.reference(record)).map(|found| found.0));
        }
    }
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is as it should be, or may still become so.
    Stays,
    /// Its label lags behind its row.
    IsKept,
    /// Nobody will ever ask for it.
    IsDestroyed,
    /// It had a row.
    Unknown,
}

/// The one place that decides about destroying an object.
pub(crate) fn fate(label: &Label, has_row: bool, now: i64) -> Fate {
    match (label.state, has_row) {
        (State::Made, true) => Fate::IsKept,
        (State::Made, false) if now.saturating_sub(label.made) < GRACE => Fate::Stays,
        (State::Made | State::Gone, false) => Fate::IsDestroyed,
        // A purge may be on its way.
        (State::Gone | State::Kept, true) => Fate::Stays,
        (State::Kept, false) => Fate::Unknown,
    }
}

/// Whether keys of this type live in the token, if there is one.
pub(crate) fn lives_in_token(key_type: KeyType, all_keys: bool) -> bool {
    key_type.hsm || all_keys
}

/// The family of a public part: the class of its object.
pub(crate) fn family(public: &PublicKey) -> Family {
    match public {
        PublicKey::Rsa(_) => Family::Rsa,
        PublicKey::Ec(_) => Family::Ec,
        PublicKey::Oct(_) => Family::Oct,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_never_had_a_row_or_was_purged_is_destroyed() {
        let now = 1_800_000_000;
        let label = |state, made| Label { vault: "v".to_owned(), made, state };
        let cases = [
            (State::Made, now - GRACE, false, Fate::IsDestroyed),
            (State::Made, now - GRACE + 1, false, Fate::Stays),
            (State::Made, now + 5, false, Fate::Stays),
            (State::Made, now - 9 * GRACE, true, Fate::IsKept),
            (State::Kept, 0, true, Fate::Stays),
            (State::Kept, 0, false, Fate::Unknown),
            (State::Gone, now, true, Fate::Stays),
            (State::Gone, now, false, Fate::IsDestroyed),
        ];
        for (state, made, has_row, expected) in cases {
            assert_eq!(fate(&label(state, made), has_row, now), expected, "{state:?} {made} {has_row}");
        }
    }
}
