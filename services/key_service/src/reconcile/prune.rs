//! Purges deleted keys whose time is over and forgets tokens that nobody could present any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use public_api::decision_log::Decision;
use serde_json::json;

use crate::app::{AppError, AppState};
use crate::store::{decisions, keys, releases};
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

/// One pass, in one transaction. Returns how many keys were purged. A key whose object in the HSM cannot be destroyed now
/// waits for the next pass; the others do not wait for it.
pub async fn once(state: &AppState) -> Result<usize, AppError> {
    let now = state.now();
    let doomed = doomed(state, now).await?;
    let base_url = state.base_url.clone();
    let template = state.event(Decision::KeyChanged, "", None, json!({"operation": "scheduledPurge"}));
    let purged = state.store.write(move |connection| {
        Box::pin(async move {
            releases::forget_tokens(connection, now).await?;
            let due = keys::due_for_purge(&mut *connection, now).await?;
            let mut purged = (0, Vec::new());
            for name in due.iter().filter(|name| doomed.contains(*name)) {
                purged.0 += 1;
                purged.1.extend(keys::deleted_versions(&mut *connection, name).await?);
                keys::purge(connection, name).await?;
                let subject = format!("{base_url}/keys/{name}");
                decisions::append(connection, decisions::Event { subject, ..template.clone() }).await?;
            }
            Ok(purged)
        })
    });
    let (count, versions) = purged.await?.into_inner();
    versions.iter().for_each(|record| state.opened_keys.forget(&record.name));
    state.bury(&versions).await;
    Ok(count)
}

/// Names whose time is over and whose objects in the HSM, if they have any, are marked as gone.
async fn doomed(state: &AppState, now: i64) -> Result<BTreeSet<String>, AppError> {
    let mut doomed = BTreeSet::new();
    for name in keys::due_for_purge(state.store.readers(), now).await? {
        let versions = keys::deleted_versions(state.store.readers(), &name).await?;
        match state.doom(&versions).await {
            Ok(()) => drop(doomed.insert(name)),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    key = name,
                    "a key cannot be purged now"
                );
            }
        }
    }
    Ok(doomed)
}
