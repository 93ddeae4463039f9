//! A bounded memory of byte strings that were looked at before, by their SHA-256.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

/// Some hundred KiB at most. When it is full it forgets everything: what is looked at again costs its check once more.
const CAPACITY: usize = 8192;

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashSet<[u8; 32]>>);

impl Seen {
    /// Whether these bytes were [added](Self::add).
    pub fn has(&self, bytes: &[u8]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&sha256(bytes))
    }

    /// Adds bytes; whether they are new.
    pub fn add(&self, bytes: &[u8]) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= CAPACITY {
            seen.clear();
        }
        seen.insert(sha256(bytes))
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_known_until_too_much_was() {
        let seen = Seen::default();
        assert!(!seen.has(b"a") && seen.add(b"a") && seen.has(b"a") && !seen.add(b"a"));
        assert!((0..CAPACITY).all(|number| seen.add(&number.to_le_bytes())));
        assert!(!seen.has(b"a"), "it forgets");
        assert!(seen.0.lock().expect("nobody panicked").len() <= CAPACITY);
    }
}
