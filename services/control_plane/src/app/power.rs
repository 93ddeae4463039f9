//! Start, restart, stop, deallocate.

use internal_api::host::VmPhase;

use super::names::Place;
use super::operations::Begun;
use super::refusal::Refusal;
use super::vm::{VmDesired, WantedPower};
use super::{ControlPlane, vms};
use crate::reconcile::{placement, reach};
use crate::store::{Tx, Verb, VmRow};

/// What a caller may ask of a VM's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerAction {
    /// On.
    Start,
    /// Off and on again.
    Restart,
    /// Off; its place is kept.
    PowerOff,
    /// Off; its place is given up.
    Deallocate,
}

/// Carries out an action: as a new generation that the host brings about.
pub async fn act(app: &ControlPlane, place: &Place, action: PowerAction) -> Result<Begun, Refusal> {
    let mut tx = app.store.begin().await?;
    let vm = vms::find(&mut tx, place).await?;
    vms::refuse_if_deleting(&vm.resource)?;
    let desired = wanted(&vm, action)?;
    if action == PowerAction::Start && vm.desired.power == WantedPower::Deallocated {
        make_room(&mut tx, &vm).await?;
    }
    let quiet = desired == vm.desired && settled(&vm);
    let begun = vms::change(&mut tx, &vm, desired, quiet, Verb::Action).await?;
    tx.commit().await?;
    reach("after storing a change of power");
    Ok(begun)
}

fn wanted(vm: &VmRow, action: PowerAction) -> Result<VmDesired, Refusal> {
    let mut desired = vm.desired.clone();
    match action {
        PowerAction::Start => desired.power = WantedPower::Running,
        PowerAction::PowerOff if desired.power == WantedPower::Deallocated => {}
        PowerAction::PowerOff => desired.power = WantedPower::Stopped,
        PowerAction::Deallocate => desired.power = WantedPower::Deallocated,
        PowerAction::Restart if desired.power == WantedPower::Running => desired.restarts += 1,
        PowerAction::Restart => {
            let message =
                format!("The VM '{}' is not running and cannot be restarted; start it.", vm.resource.name);
            return Err(Refusal::conflict("OperationNotAllowed", message));
        }
    }
    Ok(desired)
}

/// Whether the host has what is wanted, so that wanting it again needs no work.
fn settled(vm: &VmRow) -> bool {
    let phase = vm.state.as_ref().map(|state| state.phase);
    let as_wanted = match vm.desired.power {
        WantedPower::Running => matches!(phase, Some(VmPhase::Running | VmPhase::Booted)),
        WantedPower::Stopped | WantedPower::Deallocated => {
            phase == Some(VmPhase::Stopped) || vm.launch_document.is_none()
        }
    };
    as_wanted && vm.resource.reached == vm.resource.generation
}

/// A deallocated VM keeps its disk on its host, so it can start there only, and only if there is room again.
async fn make_room(tx: &mut Tx, vm: &VmRow) -> Result<(), Refusal> {
    let Some(name) = &vm.host else { return Ok(()) };
    let hosts = tx.hosts().await?;
    let others = tx.vms().await?;
    let Some(host) = hosts.iter().find(|host| host.name == *name) else { return Ok(()) };
    match placement::shortage(host, &others, vm) {
        None => Ok(()),
        Some(reason) => {
            let message =
                format!("Allocation failed. {reason}. Stop or delete other VMs there, or try again later.");
            Err(Refusal::conflict("AllocationFailed", message))
        }
    }
}
