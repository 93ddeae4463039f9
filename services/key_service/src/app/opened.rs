//! Opened private keys, kept while they are used: to read an RSA key takes longer than to use it.
//!
//! A kept key is found by a hash of what is stored and of all that it is bound to. Each use has the row as it stands
//! ([`super::recent`]); a row that was changed has another hash, so it goes through the seal again, and one that is gone has
//! none.
//!
//! A key is used on the thread that asks: a thread of its own would cost more, and let more of them run than there are
//! cores.
//!
//! Plaintext of keys is in memory no longer than this makes it: a key that nobody used for [`IDLE`] is forgotten, and one
//! that is purged here is forgotten at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};

use super::keys::binding;
use super::{AppError, AppState};
use crate::crypto::opened::OpenedKey;
use crate::store::keys::KeyRecord;

/// Most keys that are kept: about 10 KiB each.
const CAPACITY: usize = 1024;
/// How long an unused key is kept.
pub const IDLE: Duration = Duration::from_secs(300);

/// SHA-256 of a stored key and of its binding.
type Id = [u8; 32];

struct Kept {
    key: Arc<OpenedKey>,
    name: String,
    used: Instant,
}

/// The keys that are kept.
#[derive(Default)]
pub struct OpenedKeys(Mutex<HashMap<Id, Kept>>);

impl OpenedKeys {
    fn kept(&self) -> MutexGuard<'_, HashMap<Id, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &Id, now: Instant) -> Option<Arc<OpenedKey>> {
        let mut kept = self.kept();
        let found = kept.get_mut(id)?;
        found.used = now;
        Some(Arc::clone(&found.key))
    }

    fn keep(&self, id: Id, name: &str, key: Arc<OpenedKey>, now: Instant) {
        let mut kept = self.kept();
        if kept.len() >= CAPACITY {
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| *id);
            oldest.map(|id| kept.remove(&id));
        }
        kept.insert(id, Kept { key, name: name.to_ascii_lowercase(), used: now });
    }

    /// Forgets all versions of a name.
    pub fn forget(&self, name: &str) {
        let name = name.to_ascii_lowercase();
        self.kept().retain(|_, kept| kept.name != name);
    }

    /// Forgets keys that nobody used for a while.
    pub fn forget_idle(&self, now: Instant) {
        self.kept().retain(|_, kept| now.saturating_duration_since(kept.used) < IDLE);
    }
}

impl AppState {
    /// The private key of a record, ready for use.
    pub(super) async fn opened_key(&self, record: &KeyRecord) -> Result<Arc<OpenedKey>, AppError> {
        let id = id(record);
        if let Some(key) = self.opened_keys.find(&id, Instant::now()) {
            return Ok(key);
        }
        let (private, public) = (self.open_key(record)?, record.public.clone());
        let read = tokio::task::spawn_blocking(move || OpenedKey::read(private, &public)).await?;
        let key = Arc::new(read.map_err(AppError::Key)?);
        self.opened_keys.keep(id, &record.name, Arc::clone(&key), Instant::now());
        Ok(key)
    }
}

fn id(record: &KeyRecord) -> Id {
    // The seal's length is fixed by the bytes before it: every field of a binding has its length before it.
    let mut bytes = binding(record);
    bytes.extend_from_slice(record.sealed.as_bytes());
    digest(&SHA256, &bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::crypto::seal::PrivateKey;

    fn key() -> Arc<OpenedKey> {
        Arc::new(OpenedKey::Oct(PrivateKey::new(Zeroizing::new(vec![1; 16]))))
    }

    fn id_of(number: u64) -> Id {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        id
    }

    #[test]
    fn an_unused_key_is_forgotten_and_a_used_one_stays() {
        let (keys, start) = (OpenedKeys::default(), Instant::now());
        keys.keep(id_of(1), "a", key(), start);
        keys.keep(id_of(2), "b", key(), start);
        let later = start + IDLE - Duration::from_secs(1);
        assert!(keys.find(&id_of(1), later).is_some());
        keys.forget_idle(start + IDLE);
        assert!(keys.find(&id_of(1), later).is_some() && keys.find(&id_of(2), later).is_none());
    }

    #[test]
    fn all_versions_of_a_purged_name_are_forgotten_in_any_case() {
        let (keys, now) = (OpenedKeys::default(), Instant::now());
        for (number, name) in [(1, "Gone"), (2, "gone"), (3, "goner")] {
            keys.keep(id_of(number), name, key(), now);
        }
        keys.forget("GONE");
        let left: Vec<u64> = (1..=3).filter(|number| keys.find(&id_of(*number), now).is_some()).collect();
        assert_eq!(left, [3]);
    }

    #[test]
    fn the_one_that_was_unused_longest_makes_room() {
        let (keys, start) = (OpenedKeys::default(), Instant::now());
        let capacity = u64::try_from(CAPACITY).unwrap();
        for number in 0..capacity {
            keys.keep(id_of(number), "a", key(), start + Duration::from_millis(number));
        }
        let now = start + Duration::from_secs(2);
        assert!(keys.find(&id_of(0), now).is_some());
        keys.keep(id_of(capacity), "a", key(), now);
        assert_eq!(keys.kept().len(), CAPACITY);
        assert!(keys.find(&id_of(0), now).is_some() && keys.find(&id_of(1), now).is_none());
    }
}
