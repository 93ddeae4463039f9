//! The decision log: append-only, hash-chained records of every attestation, release, refusal and policy change.
//!
//! An entry's `hash` is SHA-256 over `previous` (32 bytes) and the canonical JSON of the entry without its hash. Who
//! holds the newest hash can prove that nothing before it was changed, removed or reordered. This module is pure; each
//! service stores its own log.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Denial;
use crate::encoding::to_hex;

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// Evidence was accepted and a token issued.
    Attested,
    /// A key was released.
    Released,
    /// Something was refused; `denial` says why.
    #[default]
    Refused,
    /// A key was created, changed, used or deleted.
    KeyChanged,
    /// A policy or a setting that decides was changed.
    PolicyChanged,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// 1 for the first entry, then without gaps.
    pub sequence: u64,
    /// RFC 3339, UTC.
    pub time: String,
    /// What happened.
    pub decision: Decision,
    /// Whom or what it concerns: a VM id, a key id.
    pub subject: String,
    /// The refusal, for [`Decision::Refused`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
    /// Facts worth keeping: token id, measurement, generation. Never a secret.
    pub detail: Value,
    /// Hash of the entry before, hex; 64 zeros for the first.
    pub previous: String,
    /// Hash of this entry, hex.
    pub hash: String,
}

/// A chain that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A number is missing or repeated.
    #[error("entry {found} stands where entry {expected} should be")]
    Sequence {
        /// The number that should be there.
        expected: u64,
        /// The number that is there.
        found: u64,
    },
    /// `previous` is not the hash of the entry before.
    #[error("entry {0} does not follow from the entry before it")]
    Link(u64),
    /// The entry was changed.
    #[error("entry {0} does not have the hash it states")]
    Hash(u64),
}

/// The hash before the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Where an entry stands in its chain: all that the next one needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number.
    pub sequence: u64,
    /// Its hash, hex.
    pub hash: String,
}

impl Entry {
    /// The next entry after `last` (or the first one).
    pub fn following(
        last: Option<&Entry>,
        time: String,
        decision: Decision,
        subject: String,
        denial: Option<Denial>,
        detail: Value,
    ) -> Entry {
        let last = last.map(Entry::place);
        let mut entry = Entry::unhashed(last.as_ref(), time, decision, subject, denial, detail);
        entry.hash = entry.computed_hash();
        entry
    }

    /// As [`Entry::following`], as the JSON text that is stored. The text is written once.
    pub fn following_text(
        last: Option<&Place>,
        time: String,
        decision: Decision,
        subject: String,
        denial: Option<Denial>,
        detail: Value,
    ) -> (Place, String) {
        let entry = Entry::unhashed(last, time, decision, subject, denial, detail);
        let mut text = serde_json::to_string(&entry).expect("an entry has only string keys");
        let hash = hash_of(&entry.previous, text.as_bytes());
        // The hash is the last member, and empty as yet.
        text.truncate(text.len() - "\"}".len());
        text.push_str(&hash);
        text.push_str("\"}");
        (Place { sequence: entry.sequence, hash }, text)
    }

    /// Its place in the chain.
    pub fn place(&self) -> Place {
        Place { sequence: self.sequence, hash: self.hash.clone() }
    }

    fn unhashed(
        last: Option<&Place>,
        time: String,
        decision: Decision,
        subject: String,
        denial: Option<Denial>,
        detail: Value,
    ) -> Entry {
        let (sequence, previous) = match last {
            Some(last) => (last.sequence + 1, last.hash.clone()),
            None => (1, GENESIS.to_owned()),
        };
        Entry { sequence, time, decision, subject, denial, detail, previous, hash: String::new() }
    }

    fn computed_hash(&self) -> String {
        let unhashed = Entry { hash: String::new(), ..self.clone() };
        let text = serde_json::to_vec(&unhashed).expect("an entry has only string keys");
        hash_of(&self.previous, &text)
    }
}

fn hash_of(previous: &str, text: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(previous.as_bytes());
    context.update(text);
    to_hex(context.finish())
}

/// Checks a whole chain, or a part of it that follows `before`.
pub fn verify<'a>(
    before: Option<&Entry>,
    entries: impl IntoIterator<Item = &'a Entry>,
) -> Result<u64, ChainError> {
    let mut sequence = before.map_or(0, |entry| entry.sequence);
    let mut previous = before.map_or(GENESIS.to_owned(), |entry| entry.hash.clone());
    for entry in entries {
        if entry.sequence != sequence + 1 {
            return Err(ChainError::Sequence { expected: sequence + 1, found: entry.sequence });
        }
        if entry.previous != previous {
            return Err(ChainError::Link(entry.sequence));
        }
        if entry.hash != entry.computed_hash() {
            return Err(ChainError::Hash(entry.sequence));
        }
        sequence = entry.sequence;
        previous.clone_from(&entry.hash);
    }
    Ok(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain(length: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for number in 0..length {
            let time = format!("2026-01-01T00:00:{number:02}Z");
            let detail = json!({"number": number});
            let next =
                Entry::following(entries.last(), time, Decision::Attested, "vm".to_owned(), None, detail);
            entries.push(next);
        }
        entries
    }

    #[test]
    fn a_whole_chain_and_its_tail_verify() {
        let entries = chain(5);
        assert_eq!(verify(None, &entries), Ok(5));
        assert_eq!(verify(Some(&entries[1]), &entries[2..]), Ok(5));
    }

    #[test]
    fn the_text_of_an_entry_is_the_entry() {
        let entries = chain(2);
        for (before, entry) in [(None, &entries[0]), (Some(entries[0].place()), &entries[1])] {
            let Entry { time, decision, subject, denial, detail, .. } = entry.clone();
            let (place, text) =
                Entry::following_text(before.as_ref(), time, decision, subject, denial, detail);
            assert_eq!((place, text), (entry.place(), serde_json::to_string(entry).expect("JSON")));
        }
    }

    #[test]
    fn a_changed_entry_is_found() {
        let mut entries = chain(5);
        entries[2].detail = json!({"number": 9});
        assert_eq!(verify(None, &entries), Err(ChainError::Hash(3)));
    }

    #[test]
    fn a_removed_entry_is_found() {
        let mut entries = chain(5);
        entries.remove(2);
        assert_eq!(verify(None, &entries), Err(ChainError::Sequence { expected: 3, found: 4 }));
    }

    #[test]
    fn a_rewritten_entry_breaks_the_next_link() {
        let mut entries = chain(3);
        let forged = Entry::following(
            Some(&entries[0]),
            "2026-01-01T00:00:01Z".to_owned(),
            Decision::Refused,
            "vm".to_owned(),
            None,
            json!({}),
        );
        entries[1] = forged;
        assert_eq!(verify(None, &entries), Err(ChainError::Link(3)));
    }
}
