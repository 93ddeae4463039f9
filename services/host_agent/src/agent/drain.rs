//! Stops every VM of the host, cleanly, without the control plane: for a machine that shall be switched off.
//!
//! The specs on disk then say `Off`; the control plane's next assignment says again what is wanted.

use std::time::{Duration, Instant};

use internal_api::host::{Power, VmPhase, VmSpec};

use super::*;

/// Beyond the guests' own time to power off: sealing, the last write, the key service's word.
const MARGIN: Duration = Duration::from_secs(90);

/// Stops all VMs and returns when they are down, or names those that are not.
///
/// # Errors
/// When another agent runs, or a VM did not stop in time.
pub async fn drain(config: Config) -> Result<(), AgentError> {
    let _lock = hold(&config)?;
    let limit = Duration::from_secs(config.shutdown_seconds) + MARGIN;
    let mut agent = Agent {
        host: host(config).await?,
        vms: BTreeMap::new(),
        changed: Arc::default(),
        known_revision: 0,
        told: BTreeMap::new(),
    };
    for spec in specs(&agent.host.config)? {
        agent.want(VmSpec { power: Power::Off, ..spec });
    }
    agent.until_stopped(limit).await
}

fn specs(config: &Config) -> Result<Vec<VmSpec>, AgentError> {
    let known = dir::known(&config.data_dir);
    let known = known.map_err(|error| AgentError::File(config.data_dir.clone(), error))?;
    let dirs = known.iter().filter_map(|id| VmDir::new(&config.data_dir, &config.runtime_dir, id));
    Ok(dirs.filter_map(|dir| dir.spec()).collect())
}

impl Agent {
    async fn until_stopped(&self, limit: Duration) -> Result<(), AgentError> {
        let deadline = Instant::now() + limit;
        loop {
            let running = self.running();
            if running.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(AgentError::StillRunning(running.join(", ")));
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), self.changed.notified()).await;
        }
    }

    fn running(&self) -> Vec<String> {
        let states = self.vms.values().map(VmHandle::state);
        let down = |phase| matches!(phase, VmPhase::Stopped | VmPhase::Failed);
        states.filter(|state| !down(state.phase)).map(|state| state.vm_id).collect()
    }
}
