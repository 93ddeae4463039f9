//! Destroys deleted vaults whose days are over, and goes on with what an earlier process began.

use std::sync::Arc;
use std::time::Duration;

use super::Vaults;
use crate::app::AppError;
use crate::store::vaults as registry;

const INTERVAL: Duration = Duration::from_secs(600);

/// Runs for ever: once at the start, then every ten minutes.
pub async fn run(vaults: Arc<Vaults>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        if let Err(error) = once(&vaults).await {
            tracing::warn!(
                error = crate::chain(&error),
                "vaults that are over were not removed; it will be tried again"
            );
        }
    }
}

/// One pass. Returns how many vaults went.
pub async fn once(vaults: &Vaults) -> Result<usize, AppError> {
    let _changes = vaults.changes.lock().await;
    let state = vaults.default_vault();
    let (now, mut gone) = (state.now(), 0);
    for record in registry::all(state.store.readers()).await? {
        let over = record.deletion.is_some_and(|deletion| deletion.scheduled_purge_date <= now);
        if record.purging || over {
            vaults.destroy(None, record).await?;
            gone += 1;
        }
    }
    Ok(gone)
}
