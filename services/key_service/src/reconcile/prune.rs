//! Purges deleted keys whose time is over and forgets tokens that nobody could present any more.

use std::sync::Arc;
use std::time::Duration;

use public_api::decision_log::Decision;
use serde_json::json;

use crate::app::{AppError, AppState};
use crate::store::{StoreError, decisions, keys, releases};
use crate::vaults::Vaults;

const INTERVAL: Duration = Duration::from_secs(3600);

/// Runs for ever: once at the start, then every hour.
pub async fn run(vaults: Arc<Vaults>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        if let Err(error) = all(&vaults).await {
            tracing::warn!(error = crate::chain(&error), "pruning failed and will be tried again");
        }
    }
}

async fn all(vaults: &Vaults) -> Result<(), AppError> {
    for state in vaults.live().await? {
        once(&state).await?;
    }
    Ok(())
}

/// One pass, in one transaction. Returns how many keys were purged.
pub async fn once(state: &AppState) -> Result<usize, StoreError> {
    let now = state.now();
    let base_url = state.base_url.clone();
    let template = state.event(Decision::KeyChanged, "", None, json!({"operation": "scheduledPurge"}));
    let purged = state.store.write(move |connection| {
        Box::pin(async move {
            releases::forget_tokens(connection, now).await?;
            let due = keys::due_for_purge(connection, now).await?;
            for name in &due {
                keys::purge(connection, name).await?;
                let subject = format!("{base_url}/keys/{name}");
                decisions::append(connection, decisions::Event { subject, ..template.clone() }).await?;
            }
            Ok(due.len())
        })
    });
    Ok(purged.await?.into_inner())
}
