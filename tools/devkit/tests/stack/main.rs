//! A whole platform, every process real but QEMU (`stand-in-qemu`): each process crashes at each point of a VM's life, by a
//! fault plan, and the life ends as an undisturbed one does.
//!
//! Several platforms share the points (`rounds`); what each point came to is then told process by process.

mod kills;
mod points;
mod rounds;
mod site;
mod state;
mod tenant;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use devkit::guest::image;
use devkit::guest::signing::Snakeoil;
use devkit::runner::{check, essential, run};

use points::Phase;
use site::Site;
use state::EndState;

/// First port of the first platform; away from the `vm` lane's.
const FIRST_PORT: u16 = 20443;
/// Platforms at once: a life is mostly waiting.
const SITES: u16 = 8;

/// What the checks build on.
#[derive(Default)]
struct Scenario {
    folder: Option<tempfile::TempDir>,
    sites: Vec<Site>,
    reference: BTreeMap<Phase, EndState>,
    /// By phase and point.
    outcomes: BTreeMap<(Phase, &'static str), Result<(), String>>,
}

fn platforms_come_up(scenario: &mut Scenario) -> Result<()> {
    let folder = scenario.folder.insert(tempfile::Builder::new().prefix("casemate-stack-").tempdir()?);
    let signer = Snakeoil::new(folder.path());
    let image = image::make_signed_in(folder.path(), image::OPTIONS, &|program| signer.sign(program));
    for number in 0..SITES {
        scenario.sites.push(Site::up(folder.path(), number, FIRST_PORT + number * 300, &image.path)?);
    }
    Ok(())
}

fn an_undisturbed_life(scenario: &mut Scenario) -> Result<()> {
    let site = scenario.sites.first_mut().context("a platform")?;
    let mut wrong = Vec::new();
    for phase in Phase::ALL {
        let state = site.live(phase, None, None).with_context(|| format!("{phase:?}"))?;
        scenario.reference.insert(phase, state);
        wrong.extend(points::compare(phase, &site.plan.reached()));
    }
    ensure!(site.boots == [1, 2], "the guest counted its boots as {:?}", site.boots);
    ensure!(
        wrong.is_empty(),
        "the table of points is not that of an undisturbed life:\n{}",
        wrong.join("\n")
    );
    Ok(())
}

fn every_point_is_lived_through(scenario: &mut Scenario) -> Result<()> {
    scenario.outcomes = rounds::run(&mut scenario.sites, &scenario.reference);
    let missing = points::all().filter(|key| !scenario.outcomes.contains_key(key)).count();
    ensure!(missing == 0, "{missing} points were not lived through");
    Ok(())
}

/// Reports the points of one process.
fn points_of(scenario: &Scenario, process: &str) -> Result<()> {
    let own = points::all().filter(|(_, order)| points::process(order) == process);
    let outcomes = own.map(|key| (key, scenario.outcomes.get(&key)));
    let failed: Vec<String> = outcomes
        .filter_map(|((phase, order), outcome)| match outcome {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(format!("{phase:?}, {order}: {error}")),
            None => Some(format!("{phase:?}, {order}: not reached")),
        })
        .collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}

fn main() -> ExitCode {
    let checks = [
        essential("platforms_come_up", platforms_come_up),
        essential("an_undisturbed_life_passes_the_points_of_the_table", an_undisturbed_life),
        check("every_point_is_lived_through", every_point_is_lived_through),
        check("the_control_plane_crashes_at_each_of_its_points", |s| points_of(s, "control-plane")),
        check("the_key_service_crashes_at_each_of_its_points", |s| points_of(s, "keys")),
        check("the_attestation_service_crashes_at_each_of_its_points", |s| points_of(s, "attestation")),
        check("the_secure_processor_crashes_at_each_of_its_points", |s| points_of(s, "soft-pspd")),
        check("the_host_agent_crashes_at_each_of_its_points", |s| points_of(s, "host-agent")),
        check("the_paravisor_crashes_at_each_of_its_points", |s| points_of(s, "paravisor")),
        check("each_process_is_killed_while_a_vm_is_made", kills::while_a_vm_is_made),
        check("a_vms_key_is_exchanged_rotated_revoked_and_its_disk_exported", tenant::keys_change_under_a_vm),
    ];
    run(Scenario::default(), &checks)
}
