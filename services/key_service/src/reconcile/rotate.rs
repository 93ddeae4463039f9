//! Renews keys whose rotation policy says that it is time. A pass that is repeated, or that ends in the middle, makes no
//! second version: each is stored only behind the version that it follows.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::app::counts::Kind;
use crate::app::{AppError, AppState};
use crate::store::{StoreError, rotation};
use crate::vaults::Vaults;

const INTERVAL: Duration = Duration::from_secs(600);

/// Runs for ever: once at the start, then every ten minutes.
pub async fn run(vaults: Arc<Vaults>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        if let Err(error) = all(&vaults).await {
            tracing::warn!(error = &error as &dyn Error, "rotation failed and will be tried again");
        }
    }
}

async fn all(vaults: &Vaults) -> Result<(), AppError> {
    for state in vaults.live().await? {
        once(&state).await?;
    }
    Ok(())
}

/// One pass. Returns how many versions were made; one key's failure does not keep the others from their turn.
pub async fn once(state: &AppState) -> Result<usize, StoreError> {
    let mut made = 0;
    for policy in rotation::live(state.store.readers()).await? {
        let followed = state.follow_policy(&policy).await;
        if !matches!(followed, Ok(false)) {
            state.counts.ended(Kind::ScheduledRotate, &followed);
        }
        match followed {
            Ok(rotated) => made += usize::from(rotated),
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, key = policy.name, "a key could not be renewed");
            }
        }
    }
    Ok(made)
}
