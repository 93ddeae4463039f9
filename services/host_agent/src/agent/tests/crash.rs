//! The agent crashes at every point of a life. Each time the next one brings the VM to where it would have been.

use super::*;

const STARTING: &[&str] = &[
    "before-launch",
    "context-made",
    "paravisor-started",
    "after-launch",
    "before-start-qemu",
    "qemu-started",
    "after-start-qemu",
    "before-settle",
    "after-settle",
];
const RESETTING: &[&str] =
    &["before-note-qemu-end", "after-note-qemu-end", "before-tell-reset", "after-tell-reset", "qemu-started"];
const STOPPING: &[&str] = &[
    "before-power-down",
    "after-power-down",
    "before-note-qemu-end",
    "after-note-qemu-end",
    "before-tell-stopped",
    "after-tell-stopped",
    "before-forget-paravisor",
    "after-forget-paravisor",
    "before-decommission",
    "after-decommission",
];
const REMOVING: &[&str] = &[
    "before-end-qemu",
    "after-end-qemu",
    "before-end-paravisor",
    "after-end-paravisor",
    "before-decommission",
    "after-decommission",
];

/// Replaces the agent by one that crashes at `point`, does `what`, and lets another agent go on after the crash.
async fn crash_at(world: &mut World, point: &str, what: impl Fn(&World)) {
    world.kill_agent().await;
    world.start_agent(Some(point));
    what(world);
    let host = world.host.clone();
    world.until(&format!("crashed at {point}"), |_| host.crash.spent()).await;
    world.kill_agent().await;
    world.start_agent(None);
}

#[tokio::test]
async fn at_every_point_of_a_start() {
    for point in STARTING {
        let mut world = World::new().await;
        crash_at(&mut world, point, |world| world.want(vec![spec(1)])).await;
        world.until_phase(VmPhase::Booted, 1).await;
        assert_eq!((world.paravisors(), world.qemus(), world.contexts()), (1, 1, 1), "{point}");
    }
}

#[tokio::test]
async fn at_every_point_of_a_reset() {
    let mut world = World::new().await;
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    for point in RESETTING {
        let qemu = process::find(&world.qemu_argument()).expect("a QEMU");
        crash_at(&mut world, point, |world| world.behave("guest", "reset")).await;
        world.until_another(&world.qemu_argument(), &qemu).await;
        world.until_phase(VmPhase::Booted, 1).await;
        assert_eq!((world.paravisors(), world.qemus()), (1, 1), "{point}");
    }
}

#[tokio::test]
async fn at_every_point_of_a_stop() {
    let mut world = World::new().await;
    for (turn, point) in (0_u64..).zip(STOPPING) {
        world.want(vec![spec(2 * turn + 1)]);
        world.until_phase(VmPhase::Booted, 2 * turn + 1).await;
        crash_at(&mut world, point, |world| world.want(vec![off(2 * turn + 2)])).await;
        world.until_phase(VmPhase::Stopped, 2 * turn + 2).await;
        assert_eq!((world.paravisors(), world.qemus(), world.contexts()), (0, 0, 0), "{point}");
    }
}

#[tokio::test]
async fn at_every_point_of_a_removal() {
    let mut world = World::new().await;
    for point in REMOVING {
        world.want(vec![spec(1)]);
        world.until_phase(VmPhase::Booted, 1).await;
        crash_at(&mut world, point, |world| world.want(vec![])).await;
        *world.told.seen.lock().expect("seen") = None;
        world.until("heard", |_| world.told.seen.lock().expect("seen").is_some()).await;
        world.until_gone().await;
        assert_eq!((world.paravisors(), world.qemus(), world.contexts()), (0, 0, 0), "{point}");
    }
}
