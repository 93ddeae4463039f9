//! SIGKILL from outside, at no point that the process knows of.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devkit::installation::wait_for;

use crate::Scenario;
use crate::points::Phase;
use crate::site::{Site, VM};

/// Who is killed.
const PROGRAMS: [&str; 7] = [
    "casemate-control-plane",
    "casemate-keys",
    "casemate-attestation",
    "soft-pspd",
    "casemate-host-agent",
    "casemate-paravisor",
    "stand-in-qemu",
];

/// Each program once, and then all at once.
pub fn while_a_vm_is_made(scenario: &mut Scenario) -> Result<()> {
    let wanted = scenario.reference.get(&Phase::Create).context("a reference")?;
    let gone = scenario.reference.get(&Phase::Delete);
    let mut work: Vec<Vec<&str>> = PROGRAMS.iter().map(|program| vec![*program]).collect();
    work.push(PROGRAMS.to_vec());
    let sites = scenario.sites.len();
    let mut failed = Vec::new();
    std::thread::scope(|scope| {
        let work = &work;
        let killers: Vec<_> = scenario
            .sites
            .iter_mut()
            .enumerate()
            .map(|(number, site)| {
                scope.spawn(move || {
                    let own = work.iter().skip(number).step_by(sites);
                    own.map(|programs| {
                        let killed =
                            kill(site, programs, wanted).and_then(|()| site.live(Phase::Delete, None, gone));
                        let killed = killed.map(drop).or_else(|error| site.clear().and(Err(error)));
                        killed.with_context(|| format!("killing {programs:?}"))
                    })
                    .collect::<Vec<_>>()
                })
            })
            .collect();
        for killer in killers {
            let outcomes = killer.join().unwrap_or_default();
            failed.extend(outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")));
        }
    });
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn kill(site: &mut Site, programs: &[&str], wanted: &crate::state::EndState) -> Result<()> {
    site.plan.set(None)?;
    site.platform.casemate(&["vm", "create", VM, "--image", "small", "--no-wait"])?;
    let (interval, limit) = (Duration::from_millis(10), Duration::from_secs(30));
    let last = programs.contains(&"stand-in-qemu");
    let moment = if last { "host-agent: qemu-started" } else { "paravisor: before EncryptDisk" };
    wait_for(interval, limit, || Ok(site.plan.reached().iter().any(|point| point == moment).then_some(())))?;
    // All are found before the first is killed: some end by themselves once another is gone.
    let mut found = Vec::new();
    for program in programs {
        found.extend(running(site, program)?);
    }
    found.into_iter().try_for_each(devkit::installation::kill_process)?;
    site.settle(Phase::Create, Some(wanted))?;
    site.check_history(Phase::Create, None)
}

/// The processes of a program that runs by now: one in the midst of its `execve` shows no command line yet.
fn running(site: &Site, program: &str) -> Result<Vec<i32>> {
    wait_for(Duration::from_millis(1), Duration::from_secs(5), || {
        let found = site.platform.processes(program)?;
        Ok((!found.is_empty()).then_some(found))
    })
    .with_context(|| format!("{program} does not run"))
}
