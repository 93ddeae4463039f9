//! Disk encryption sets: those that follow their key's newest version are given it, and a set is done with its change when
//! every running VM that uses it has moved to its key.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::key_service::KeyTrouble;
use super::{PassError, Reconcilers};
use crate::app::encryption_sets::{self, Progress};
use crate::app::names::DES;
use crate::app::now_millis;
use crate::store::Resource;

/// When the key service was last asked.
#[derive(Debug, Default)]
pub struct Polled(Mutex<Option<Instant>>);

impl Polled {
    /// Whether it is time to ask again; then the time begins anew.
    fn is_due(&self, pause: Duration) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= pause);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

/// Runs once over all sets.
pub async fn run(reconcilers: &Reconcilers) -> Result<(), PassError> {
    let store = &reconcilers.app.store;
    let sets = store.resources_of_kind(DES).await?;
    let pause = Duration::from_secs(reconcilers.app.config.keys.poll_seconds.into());
    if sets.iter().any(follows) && reconcilers.polled.is_due(pause) {
        for set in sets.iter().filter(|set| follows(set)) {
            follow(reconcilers, set).await?;
        }
    }
    for set in sets.iter().filter(|set| set.reached < set.generation) {
        settle(reconcilers, set).await?;
    }
    Ok(())
}

fn follows(set: &Resource) -> bool {
    !set.deleted && set.desired["properties"]["rotationToLatestKeyVersionEnabled"] == json!(true)
}

/// Gives a set the newest version of its key, or notes why that is not known.
async fn follow(reconcilers: &Reconcilers, set: &Resource) -> Result<(), PassError> {
    let Some(url) = set.desired["properties"]["activeKey"]["keyUrl"].as_str() else { return Ok(()) };
    let mut desired = set.desired.clone();
    match reconcilers.keys.newest(url).await {
        Ok(newest) if newest == url => desired["rotationError"] = json!(null),
        Ok(newest) => {
            desired["properties"]["activeKey"]["keyUrl"] = json!(newest);
            desired["rotatedAt"] = json!(now_millis());
            desired["rotationError"] = json!(null);
        }
        // The next question may be answered.
        Err(KeyTrouble::Transient(text)) => {
            tracing::warn!(set = %set.id, text, "the key service was not asked for newer versions");
            return Ok(());
        }
        Err(KeyTrouble::Permanent(failure)) => {
            desired["rotationError"] = json!({"code": failure.code, "message": failure.actual});
        }
    }
    let same = desired["rotationError"] == set.desired["rotationError"];
    if same && desired["properties"] == set.desired["properties"] {
        return Ok(());
    }
    reconcilers.probe.at("before rotating an encryption set")?;
    let mut tx = reconcilers.app.store.begin().await?;
    // A tenant's change that came in since is not undone.
    if let Some(newest) = tx.resource(&set.key).await?.filter(|newest| newest.generation == set.generation) {
        encryption_sets::change(&mut tx, &newest, desired).await?;
        tx.commit().await?;
    }
    reconcilers.probe.at("after rotating an encryption set")?;
    Ok(())
}

async fn settle(reconcilers: &Reconcilers, set: &Resource) -> Result<(), PassError> {
    let vms = reconcilers.app.store.vms().await?;
    match encryption_sets::progress(&vms, set) {
        Progress::Moving => return Ok(()),
        Progress::Done => {
            let mut tx = reconcilers.app.store.begin().await?;
            tx.mark_reached(&set.key, set.generation).await?;
            tx.commit().await?;
        }
        Progress::Refused(failure) => {
            let mut tx = reconcilers.app.store.begin().await?;
            if tx.failure(&set.incarnation, set.generation).await?.is_some() {
                return Ok(());
            }
            tx.mark_failed(set, set.generation, &failure, now_millis()).await?;
            tx.commit().await?;
        }
    }
    reconcilers.probe.at("after settling an encryption set")?;
    Ok(())
}
