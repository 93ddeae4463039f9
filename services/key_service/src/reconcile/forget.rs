//! Lets opened keys that nobody uses go from memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::vaults::Vaults;

const INTERVAL: Duration = Duration::from_secs(60);

/// Runs for ever, every minute.
pub async fn run(vaults: Arc<Vaults>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        for state in vaults.open_ones() {
            state.opened_keys.forget_idle(Instant::now());
        }
    }
}
