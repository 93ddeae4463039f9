//! Which of a provider's signing keys signs now, and which are published. Pure: times are arguments.
//!
//! ```text
//! made ──publish──▶ published ──active_from──▶ signs ──the next one's active_from──▶ published ──covers_until──▶ gone
//! ```
//!
//! A key is published a while before it signs, so that no verifier meets a token under a key that it could not have
//! fetched, and after it for as long as a token that it signed can hold.

use public_api::attestation_policy::TokenAlgorithm;
use serde::{Deserialize, Serialize};

/// What is kept about a key beside its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyRecord {
    /// Number of its files; keys are in the order of their numbers.
    pub number: u64,
    /// Algorithm.
    pub algorithm: TokenAlgorithm,
    /// Unix seconds.
    pub active_from: i64,
    /// Unix seconds: no token signed so far holds longer.
    pub covers_until: i64,
}

/// The index of the key that signs at `now`: the newest one that is active.
pub fn active(records: &[KeyRecord], now: i64) -> Option<usize> {
    records.iter().rposition(|record| record.active_from <= now)
}

/// The indexes of the keys under which a token can verify at `now`, the signing one first.
pub fn published(records: &[KeyRecord], now: i64) -> Vec<usize> {
    let signing = active(records, now);
    let others = (0..records.len()).filter(|index| {
        let is_coming = signing.is_none_or(|signing| *index > signing);
        Some(*index) != signing
            && (is_coming || records.get(*index).is_some_and(|key| key.covers_until > now))
    });
    signing.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(keys: &[(i64, i64)]) -> Vec<KeyRecord> {
        let record = |(number, (active_from, covers_until)): (u64, &(i64, i64))| KeyRecord {
            number,
            algorithm: TokenAlgorithm::RS256,
            active_from: *active_from,
            covers_until: *covers_until,
        };
        (0..).zip(keys).map(record).collect()
    }

    #[test]
    fn keys_come_sign_and_go_without_a_gap() {
        let keys = records(&[(0, 150), (100, 300), (200, 0)]);
        let cases = [
            (50, Some(0), vec![0, 1, 2]),
            (99, Some(0), vec![0, 1, 2]),
            (100, Some(1), vec![1, 0, 2]),
            (149, Some(1), vec![1, 0, 2]),
            (150, Some(1), vec![1, 2]),
            (200, Some(2), vec![2, 1]),
            (300, Some(2), vec![2]),
        ];
        for (now, signing, shown) in cases {
            assert_eq!((active(&keys, now), published(&keys, now)), (signing, shown), "at {now}");
        }
    }

    #[test]
    fn without_an_active_key_all_are_coming() {
        assert_eq!((active(&records(&[(10, 0)]), 5), published(&records(&[(10, 0)]), 5)), (None, vec![0]));
        assert_eq!((active(&[], 5), published(&[], 5)), (None, vec![]));
    }
}
