//! The loops that bring what is wanted about.
//!
//! A reconciler takes no input: it reads the store, plans with a pure function, and executes steps that can be repeated.
//! A crash anywhere is a re-run. The order below is only the quickest; any order ends in the same state.
//!
//! ```text
//! accepted --vm_key--> key --placement--> host --assignment--> launch document --(host)--> running
//! deleted  --(host confirms absence)--> absent --deletion--> key deleted, rows removed
//!
//! another key wanted --key_change--> launch document names it --(host)--> the VM moves to it
//! encryption set: newer version of its key --encryption_set--> its VMs want it; all running ones moved --encryption_set--> done
//!
//! host reports its chip --host_collateral--> the attestation service has the chip's certificate
//! attestation provider: accepted --attestation_provider--> ready; deleted --attestation_provider--> row removed
//! vault: accepted, or who may do what changed --vault--> told to the key service; deleted --vault--> row removed
//! ```

pub mod assignment;
pub mod attestation_provider;
pub mod attestation_service;
pub mod deletion;
pub mod encryption_set;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod host_collateral;
pub mod key_change;
pub mod key_service;
pub mod placement;
pub mod vault;
pub mod vault_service;
pub mod vm_key;

use std::sync::Arc;
use std::time::Duration;

use internal_api::paravisor::Failure;
use tracing::{error, info};

use crate::app::{ControlPlane, now_millis};
use crate::store::{StoreError, VmRow};
use attestation_service::AttestationService;
use key_service::KeyService;
use vault_service::VaultService;

/// How long a loop sleeps while something waits for a peer or for time to pass.
const RETRY: Duration = Duration::from_secs(1);

/// Points between two effects of a step, where tests interrupt. Production's probe is the process's fault plan.
pub trait Probe: Send + Sync {
    /// Called before and after each effect.
    fn at(&self, point: &'static str) -> Result<(), Interrupted>;
}

/// The process would have died here.
#[derive(Debug, thiserror::Error)]
#[error("interrupted at {0}")]
pub struct Interrupted(pub &'static str);

/// The probe of production: the whole process ends where its fault plan says so, which is nowhere without one.
#[derive(Debug)]
pub struct FaultPlan;

impl Probe for FaultPlan {
    fn at(&self, point: &'static str) -> Result<(), Interrupted> {
        reach(point);
        Ok(())
    }
}

/// A point of this process in its fault plan.
pub(crate) fn reach(point: &str) {
    fault_plan::reach("control-plane", point);
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A test.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// What reconcilers work with.
#[derive(Clone)]
pub struct Reconcilers {
    /// The control plane.
    pub app: Arc<ControlPlane>,
    /// The key service.
    pub keys: KeyService,
    /// The key service's named vaults.
    pub vaults: VaultService,
    /// The attestation service.
    pub attestation: AttestationService,
    /// When the key service was last asked for newer versions of keys.
    pub polled: Arc<encryption_set::Polled>,
    /// Where tests interrupt.
    pub probe: Arc<dyn Probe>,
}

impl Reconcilers {
    /// Runs every reconciler once.
    pub async fn pass(&self) -> Result<(), PassError> {
        encryption_set::run(self).await?;
        vm_key::run(self).await?;
        key_change::run(self).await?;
        placement::run(self).await?;
        assignment::run(self).await?;
        attestation_provider::run(self).await?;
        vault::run(self).await?;
        host_collateral::run(self).await?;
        deletion::run(self).await
    }

    /// Runs for ever: after each change, and every second in case something waits for a peer.
    pub async fn run(self) {
        let mut changes = self.app.store.changes();
        loop {
            changes.mark_unchanged();
            if let Err(problem) = self.pass().await {
                error!("a reconciler's pass ended early: {}", crate::chain(&problem));
            }
            let _ = tokio::time::timeout(RETRY, changes.changed()).await;
        }
    }

    /// Notes that a VM's newest generation will not be reached.
    pub(crate) async fn fail(&self, vm: &VmRow, failure: &Failure) -> Result<(), PassError> {
        info!(vm = %vm.resource.id, code = %failure.code, "a VM's newest generation failed");
        let mut tx = self.app.store.begin().await?;
        tx.mark_failed(&vm.resource, vm.resource.generation, failure, now_millis()).await?;
        tx.set_waiting(&vm.resource.key, "").await?;
        Ok(tx.commit().await?)
    }

    /// Notes what a VM waits for, if that is news.
    pub(crate) async fn wait(&self, vm: &VmRow, reason: &str) -> Result<(), PassError> {
        if vm.waiting == reason {
            return Ok(());
        }
        let mut tx = self.app.store.begin().await?;
        tx.set_waiting(&vm.resource.key, reason).await?;
        Ok(tx.commit().await?)
    }
}
