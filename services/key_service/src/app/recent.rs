//! Rows of keys that were used just now, kept until anything is written: to ask the database for a row takes a good part of
//! the time in which an RSA key of 2048 bits signs.
//!
//! Only where this process alone writes ([`Store::standing_still`]), which holds the file's lock. Whatever is written but
//! entries of the log ends all of them: they are kept under a number that every such transaction changes before it begins
//! and again when it has ended, and in between nothing is kept and nothing found. So a use sees what a read sees.
//!
//! [`Store::standing_still`]: crate::store::Store::standing_still

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::keys::KeyRef;
use super::{AppError, AppState};
use crate::store::keys::KeyRecord;

/// Most rows that are kept.
const CAPACITY: usize = 1024;

/// Name in lower case, and the version if one was named.
type Asked = (String, Option<String>);

#[derive(Default)]
struct Kept {
    number: u64,
    records: HashMap<Asked, Arc<KeyRecord>>,
}

/// The rows.
#[derive(Default)]
pub struct RecentRecords(Mutex<Kept>);

impl RecentRecords {
    fn find(&self, asked: &Asked, number: u64) -> Option<Arc<KeyRecord>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.records.get(asked).filter(|_| kept.number == number).map(Arc::clone)
    }

    /// Keeps what was read after `number` was.
    fn keep(&self, asked: Asked, number: u64, record: Arc<KeyRecord>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.number > number {
            return;
        }
        if kept.number < number || kept.records.len() >= CAPACITY {
            *kept = Kept { number, ..Kept::default() };
        }
        kept.records.insert(asked, record);
    }
}

impl AppState {
    /// The stored key, perhaps as it was kept, or the error that says there is none.
    pub(super) async fn recent_record(&self, key: &KeyRef) -> Result<Arc<KeyRecord>, AppError> {
        let Some(number) = self.store.standing_still() else { return self.record(key).await.map(Arc::new) };
        let asked = (key.name.to_ascii_lowercase(), key.version.clone());
        if let Some(record) = self.recent_records.find(&asked, number) {
            return Ok(record);
        }
        let record = Arc::new(self.record(key).await?);
        self.recent_records.keep(asked, number, Arc::clone(&record));
        Ok(record)
    }
}
