//! Which verified evidence is kept for trying policies on: the newest of each VM, written at most once a minute, so that a
//! VM that attests all day long costs no disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use public_api::attestation::Claims;
use public_api::attestation_policy::AttestationType;

use crate::store::{Change, StoreError, StoredEvidence};

/// Seconds between two writes for one VM.
const INTERVAL: i64 = 60;
/// Most VMs whose time of writing is remembered; after that, all are forgotten, which costs some writes.
const MAX_REMEMBERED: usize = 100_000;

/// When the evidence of each VM was written last.
#[derive(Default)]
pub struct Sampler {
    written: Mutex<HashMap<(String, AttestationType, String), i64>>,
}

impl Sampler {
    /// The change that keeps this evidence.
    pub fn keep(
        provider: &str,
        kind: AttestationType,
        subject: &str,
        claims: &Claims,
        now: i64,
    ) -> Result<Change, StoreError> {
        Ok(Change::PutEvidence(StoredEvidence {
            provider: provider.to_owned(),
            kind,
            subject: subject.to_owned(),
            claims: serde_json::to_string(claims)?,
            seen_on: now,
        }))
    }

    /// Whether the evidence of this VM is to be kept now; says so once.
    pub fn is_due(&self, provider: &str, kind: AttestationType, subject: &str, now: i64) -> bool {
        let key = (provider.to_owned(), kind, subject.to_owned());
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.get(&key).is_some_and(|last| now < last + INTERVAL) {
            return false;
        }
        if written.len() >= MAX_REMEMBERED {
            written.clear();
        }
        written.insert(key, now);
        true
    }
}
