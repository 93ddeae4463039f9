//! Bearer tokens that were verified a moment ago: a client sends the same one with each request, and a signature costs more
//! than all else of a small request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

use crate::bearer::Bearer;

/// For how long a token is believed after its signature was checked: so long does an issuer's key that was withdrawn
/// still count.
const SECONDS: i64 = 60;
/// When there are so many, all are forgotten: each costs its check once more.
const CAPACITY: usize = 4096;

/// A verified caller, and the times between which it is one.
struct Known {
    bearer: Bearer,
    from: i64,
    until: i64,
}

/// Callers by the SHA-256 of their tokens.
#[derive(Default)]
pub struct Remembered(Mutex<HashMap<[u8; 32], Known>>);

impl Remembered {
    /// The caller with this token, if it was verified not long before `now`.
    pub fn find(&self, token: &str, now: i64) -> Option<Bearer> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(&sha256(token))?;
        (found.from <= now && now < found.until).then(|| found.bearer.clone())
    }

    /// Remembers the caller with a token that was verified at `now` and expires at `expires`.
    pub fn add(&self, token: &str, bearer: &Bearer, now: i64, expires: i64) {
        let until = expires.min(now.saturating_add(SECONDS));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert(sha256(token), Known { bearer: bearer.clone(), from: now, until });
    }
}

fn sha256(token: &str) -> [u8; 32] {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Bearer {
        Bearer { id: "me".to_owned(), ..Bearer::default() }
    }

    #[test]
    fn a_token_is_known_for_its_time_and_no_longer() {
        let bearer = me();
        let known = Remembered::default();
        known.add("long", &bearer, 1000, 5000);
        known.add("short", &bearer, 1000, 1010);
        let ids = |now| ["long", "short"].map(|token| known.find(token, now).is_some());
        assert_eq!(ids(999), [false, false], "a clock that was put back");
        assert_eq!(ids(1000), [true, true]);
        assert_eq!(ids(1010), [true, false]);
        assert_eq!(ids(1060), [false, false]);
        assert!(known.find("lonh", 1000).is_none());
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let bearer = me();
        let known = Remembered::default();
        (0..=CAPACITY).for_each(|number| known.add(&number.to_string(), &bearer, 0, 10));
        assert_eq!(known.0.lock().unwrap().len(), 1);
    }
}
