//! Lets opened keys that nobody uses go from memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::AppState;

const INTERVAL: Duration = Duration::from_secs(60);

/// Runs for ever, every minute.
pub async fn run(state: Arc<AppState>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        state.opened_keys.forget_idle(Instant::now());
    }
}
