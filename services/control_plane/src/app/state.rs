//! What a resource's counters mean. Nothing here is stored; everything is derived.

use internal_api::host::VmPhase;

use super::vm::WantedPower;

/// Resource Manager's `provisioningState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisioningState {
    /// Never reached a generation.
    Creating,
    /// On its way to another generation.
    Updating,
    /// On its way out.
    Deleting,
    /// As wanted.
    Succeeded,
    /// The newest generation will not be reached.
    Failed,
}

impl ProvisioningState {
    /// As Resource Manager writes it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Updating => "Updating",
            Self::Deleting => "Deleting",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// Derives the provisioning state. `failed` says whether the *newest* generation has a failure on record; one that was
/// reached before it failed has succeeded, and what happens to a running VM later is not its provisioning.
pub fn provisioning_state(deleted: bool, generation: u64, reached: u64, failed: bool) -> ProvisioningState {
    match (deleted, reached >= generation, failed, reached) {
        (true, ..) => ProvisioningState::Deleting,
        (false, true, ..) => ProvisioningState::Succeeded,
        (false, false, true, _) => ProvisioningState::Failed,
        (false, false, false, 0) => ProvisioningState::Creating,
        (false, false, false, _) => ProvisioningState::Updating,
    }
}

/// `PowerState/...` of an instance view, with its text for people.
pub fn power_state(wanted: WantedPower, phase: Option<VmPhase>) -> (&'static str, &'static str) {
    let stopped = match wanted {
        WantedPower::Deallocated => ("deallocated", "VM deallocated"),
        WantedPower::Running | WantedPower::Stopped => ("stopped", "VM stopped"),
    };
    let stopping = match wanted {
        WantedPower::Deallocated => ("deallocating", "VM deallocating"),
        WantedPower::Running | WantedPower::Stopped => ("stopping", "VM stopping"),
    };
    match (phase, wanted) {
        (None, WantedPower::Running) => ("creating", "VM creating"),
        (Some(VmPhase::Starting), _) => ("starting", "VM starting"),
        (Some(VmPhase::Stopped), WantedPower::Running) => ("starting", "VM starting"),
        (Some(VmPhase::Running | VmPhase::Booted), WantedPower::Running) => ("running", "VM running"),
        (Some(VmPhase::Running | VmPhase::Booted | VmPhase::Stopping), _) => stopping,
        (None | Some(VmPhase::Stopped | VmPhase::Failed), _) => stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProvisioningState::*;

    #[test]
    fn provisioning_state_is_a_function_of_the_counters() {
        for (deleted, generation, reached, failed, expected) in [
            (false, 1, 0, false, Creating),
            (false, 1, 0, true, Failed),
            (false, 2, 0, false, Creating),
            (false, 1, 1, false, Succeeded),
            (false, 1, 1, true, Succeeded),
            (false, 3, 2, false, Updating),
            (false, 3, 2, true, Failed),
            (true, 3, 2, true, Deleting),
            (true, 3, 3, false, Deleting),
        ] {
            let state = provisioning_state(deleted, generation, reached, failed);
            assert_eq!(state, expected, "{deleted} {generation} {reached} {failed}");
        }
    }

    #[test]
    fn power_state_follows_the_host_not_the_wish() {
        use VmPhase as P;
        use WantedPower as W;
        for (wanted, phase, expected) in [
            (W::Running, None, "creating"),
            (W::Running, Some(P::Starting), "starting"),
            (W::Running, Some(P::Running), "running"),
            (W::Running, Some(P::Booted), "running"),
            (W::Running, Some(P::Failed), "stopped"),
            (W::Stopped, Some(P::Running), "stopping"),
            (W::Stopped, Some(P::Stopped), "stopped"),
            (W::Deallocated, Some(P::Booted), "deallocating"),
            (W::Deallocated, Some(P::Stopped), "deallocated"),
            (W::Deallocated, None, "deallocated"),
        ] {
            assert_eq!(power_state(wanted, phase).0, expected, "{wanted:?} {phase:?}");
        }
    }
}
