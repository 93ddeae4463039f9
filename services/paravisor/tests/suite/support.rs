//! What several tests share.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// libtpms holds one TPM a process; tests with one take turns.
pub fn one_tpm_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new folder for what lives as long as the test process (statics are never dropped). What earlier runs left is removed.
pub fn lasting_folder(name: &str) -> PathBuf {
    const PREFIX: &str = "casemate-paravisor-suite-";
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let owner = name.strip_prefix(PREFIX).map(|process| Path::new("/proc").join(process));
            if owner.is_some_and(|owner| !owner.exists()) {
                // Another user's folder stays.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()))
    });
    let folder = root.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
