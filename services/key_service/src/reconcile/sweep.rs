//! Brings the token of the hardware security module and the database together: see [`crate::app::custody`].

use std::sync::Arc;
use std::time::Duration;

use crate::app::custody::Swept;
use crate::app::{AppError, AppState};
use crate::vaults::Vaults;

const INTERVAL: Duration = Duration::from_secs(3600);

/// Runs for ever: once at the start, then every hour.
pub async fn run(vaults: Arc<Vaults>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        if let Err(error) = all(&vaults).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the HSM's objects could not be compared with the database; it will be tried again"
            );
        }
    }
}

async fn all(vaults: &Vaults) -> Result<(), AppError> {
    if !vaults.default_vault().has_hsm() {
        return Ok(());
    }
    for state in vaults.live().await? {
        tell(&once(&state).await?);
    }
    Ok(())
}

/// One pass.
pub async fn once(state: &AppState) -> Result<Swept, AppError> {
    state.sweep().await
}

fn tell(swept: &Swept) {
    if !swept.destroyed.is_empty() {
        tracing::info!(objects = ?swept.destroyed, "destroyed key objects of interrupted requests in the HSM");
    }
    if !swept.unknown.is_empty() {
        tracing::warn!(
            objects = ?swept.unknown,
            "the HSM holds key objects that no row refers to; they are left alone: is this an older copy of the database?"
        );
    }
    if !swept.missing.is_empty() {
        tracing::error!(objects = ?swept.missing, "rows refer to key objects that the HSM does not hold");
    }
}
