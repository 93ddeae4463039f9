//! What several tests share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// libtpms holds one TPM a process; tests with one take turns.
pub fn one_tpm_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
