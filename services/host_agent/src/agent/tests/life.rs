//! The life of a VM, with its accidents.

use super::*;

#[tokio::test]
async fn a_vm_is_started_stopped_started_again_and_removed() {
    let world = World::new().await;
    world.want(vec![spec(1)]);
    let state = world.until_phase(VmPhase::Booted, 1).await;
    assert!(state.ssh_port.is_some() && state.failure.is_none(), "{state:?}");
    for step in ["fetchImage", "launch", "attest", "qemu"] {
        assert!(state.timings.contains_key(step), "{step}: {:?}", state.timings);
    }
    world.want(vec![off(2)]);
    world.until_phase(VmPhase::Stopped, 2).await;
    assert_eq!((world.paravisors(), world.qemus(), world.contexts()), (0, 0, 0));
    world.want(vec![spec(3)]);
    let again = world.until_phase(VmPhase::Booted, 3).await;
    assert_eq!(again.ssh_port, state.ssh_port);
    world.want(vec![]);
    world.until_gone().await;
    assert_eq!((world.paravisors(), world.qemus(), world.contexts()), (0, 0, 0));
}

#[tokio::test]
async fn evidence_is_told_once_for_each_start() {
    let world = World::new().await;
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    world.want(vec![VmSpec { restarts: 1, ..spec(2) }]);
    world.until("restarted", |state| state.is_some_and(|state| state.restarts == 1)).await;
    world.until_phase(VmPhase::Booted, 2).await;
    // An answer that got lost makes the agent tell it again, but a sync that was answered does not.
    world.until("quiet", |state| state.is_some_and(|state| state.evidence.is_none())).await;
    let told: BTreeSet<String> = world.told.evidence.lock().expect("evidence").iter().cloned().collect();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test]
async fn a_guest_that_resets_comes_up_again_under_the_same_paravisor() {
    let world = World::new().await;
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    let first = process::find(&world.vm_file("paravisor.toml").display().to_string());
    let qemu = process::find(&world.qemu_argument()).expect("a QEMU");
    world.behave("guest", "reset");
    world.until_another(&world.qemu_argument(), &qemu).await;
    world.until_phase(VmPhase::Booted, 1).await;
    assert_eq!(process::find(&world.vm_file("paravisor.toml").display().to_string()), first);
    assert_eq!(world.qemus(), 1);
}

#[tokio::test]
async fn a_guest_that_switches_itself_off_stays_off_until_it_is_started() {
    let world = World::new().await;
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    world.behave("guest", "off");
    let state = world.until_phase(VmPhase::Stopped, 1).await;
    assert_eq!(state.detail, "the guest switched itself off");
    world.until("cleared", |_| world.contexts() == 0).await;
    world.want(vec![spec(2)]);
    world.until_phase(VmPhase::Booted, 2).await;
}

#[tokio::test]
async fn a_guest_that_does_not_hear_the_button_is_switched_off() {
    let world = World::new().await;
    world.behave("qemu-behaviour", "deaf");
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    world.want(vec![off(2)]);
    world.until_phase(VmPhase::Stopping, 1).await;
    world.until_phase(VmPhase::Stopped, 2).await;
}

#[tokio::test]
async fn a_guest_in_front_of_its_closed_disk_is_switched_off_at_once() {
    let world = World::with_patience(3600).await;
    world.behave("qemu-behaviour", "closed");
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Running, 1).await;
    world.want(vec![off(2)]);
    world.until_phase(VmPhase::Stopped, 2).await;
}

#[tokio::test]
async fn the_agent_finds_its_vm_again_even_without_the_control_plane() {
    let mut world = World::new().await;
    world.want(vec![spec(1)]);
    let port = world.until_phase(VmPhase::Booted, 1).await.ssh_port;
    let qemu = process::find(&world.qemu_argument()).expect("a QEMU");
    world.kill_agent().await;
    let control_plane = std::mem::replace(&mut world.control_plane, "http://127.0.0.1:1".to_owned());
    world.start_agent(None);
    world.behave("guest", "reset");
    world.until_another(&world.qemu_argument(), &qemu).await;
    world.kill_agent().await;
    world.control_plane = control_plane;
    *world.told.seen.lock().expect("seen") = None;
    world.start_agent(None);
    assert_eq!(world.until_phase(VmPhase::Booted, 1).await.ssh_port, port);
    assert_eq!((world.paravisors(), world.qemus(), world.contexts()), (1, 1, 1));
}

#[tokio::test]
async fn what_happened_while_the_agent_was_away_is_not_missed() {
    let mut world = World::new().await;
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    world.kill_agent().await;
    world.behave("guest", "off");
    world.until("ended", |_| world.qemus() == 0).await;
    world.start_agent(None);
    let state = world.until_phase(VmPhase::Stopped, 1).await;
    assert_eq!(state.detail, "the guest switched itself off");
}

#[tokio::test]
async fn a_vm_that_was_deleted_while_the_agent_was_away_is_removed() {
    let mut world = World::new().await;
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    world.kill_agent().await;
    world.want(vec![]);
    world.start_agent(None);
    world.until_gone().await;
    assert_eq!((world.paravisors(), world.qemus(), world.contexts()), (0, 0, 0));
}

#[tokio::test]
async fn a_refused_vm_fails_with_the_paravisors_words_and_starts_when_told_again() {
    let world = World::new().await;
    world.behave("paravisor-behaviour", "refuse");
    world.want(vec![spec(1)]);
    let state = world.until_phase(VmPhase::Failed, 1).await;
    assert_eq!(state.failure.expect("a failure").code, "PolicyRefused");
    assert_eq!((world.paravisors(), world.qemus(), world.contexts()), (0, 0, 0));
    world.behave("paravisor-behaviour", "");
    world.want(vec![spec(2)]);
    world.until_phase(VmPhase::Booted, 2).await;
}

#[tokio::test]
async fn a_boot_chain_that_cannot_be_sealed_stops_the_vm() {
    let world = World::new().await;
    world.behave("paravisor-behaviour", "refuse-reset");
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    world.behave("guest", "reset");
    let state = world.until_phase(VmPhase::Failed, 1).await;
    assert_eq!(state.failure.expect("a failure").code, "PolicyRefused");
    assert_eq!(world.qemus(), 0);
}

#[tokio::test]
async fn a_killed_paravisor_takes_its_guest_with_it_and_both_come_back() {
    let world = World::new().await;
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    let argument = world.vm_file("paravisor.toml").display().to_string();
    let first = process::find(&argument).expect("a paravisor");
    first.kill();
    world.until_another(&argument, &first).await;
    world.until_phase(VmPhase::Booted, 1).await;
    assert_eq!((world.paravisors(), world.qemus(), world.contexts()), (1, 1, 1));
}

#[tokio::test]
async fn a_killed_qemu_is_started_again() {
    let world = World::new().await;
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    let name = world.qemu_argument();
    let first = process::find(&name).expect("a QEMU");
    first.kill();
    world.until_another(&name, &first).await;
    world.until_phase(VmPhase::Booted, 1).await;
    assert_eq!((world.paravisors(), world.qemus()), (1, 1));
}

#[tokio::test]
async fn a_processor_that_is_away_is_waited_for() {
    let world = World::new().await;
    *world.processor.broken.lock().expect("broken") = true;
    world.want(vec![spec(1)]);
    let waiting = |state: Option<VmState>| {
        state.is_some_and(|state| state.detail.contains("SecureProcessorUnavailable"))
    };
    let state = world.until("waiting", waiting).await.expect("a state");
    assert_eq!(state.phase, VmPhase::Starting);
    *world.processor.broken.lock().expect("broken") = false;
    world.until_phase(VmPhase::Booted, 1).await;
}

#[tokio::test]
async fn qemus_last_words_are_told() {
    let world = World::new().await;
    world.behave("qemu-behaviour", "fail");
    world.want(vec![spec(1)]);
    let told = |state: Option<VmState>| state.is_some_and(|state| state.detail.contains("host forwarding"));
    world.until("told", told).await;
    std::fs::remove_file(world.vm_file("qemu-behaviour")).expect("remove");
    world.until_phase(VmPhase::Booted, 1).await;
}

#[tokio::test]
async fn a_missing_image_fails_the_vm_which_can_then_be_deleted() {
    let world = World::new().await;
    world.want(vec![VmSpec { image_digest: "ab".repeat(32), ..spec(1) }]);
    let state = world.until_phase(VmPhase::Failed, 1).await;
    assert_eq!(state.failure.expect("a failure").code, "ImageNotFound");
    world.want(vec![]);
    world.until_gone().await;
}

#[tokio::test]
async fn a_paravisor_that_never_gets_ready_is_ended_when_the_vm_is_stopped() {
    let world = World::new().await;
    world.behave("paravisor-behaviour", "never-ready");
    world.want(vec![spec(1)]);
    world.until("started", |_| world.paravisors() == 1).await;
    world.want(vec![off(2)]);
    world.until_phase(VmPhase::Stopped, 2).await;
    assert_eq!((world.paravisors(), world.contexts()), (0, 0));
}

#[tokio::test]
async fn a_second_agent_on_the_same_data_is_told_who_has_it() {
    let world = World::new().await;
    let _held = hold(&world.host.config).expect("held");
    let error = hold(&world.host.config).expect_err("held by somebody").to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
}

/// The spec of the VM with another key in its launch document.
fn with_key(spec: VmSpec, key_id: &str) -> VmSpec {
    let launch_document = spec.launch_document.replace("https://kv/keys/k/1", key_id);
    assert_ne!(launch_document, spec.launch_document);
    VmSpec { launch_document, ..spec }
}

#[tokio::test]
async fn a_running_vm_is_told_of_its_new_key_and_keeps_running() {
    let world = World::new().await;
    world.want(vec![spec(1)]);
    let state = world.until_phase(VmPhase::Booted, 1).await;
    assert_eq!(state.key.expect("a key").in_use, "https://kv/keys/k/1");
    let first = process::find(&world.vm_file("paravisor.toml").display().to_string());
    world.want(vec![with_key(spec(1), "https://kv/keys/k/2")]);
    world
        .until("moved", |state| {
            state.and_then(|state| state.key).is_some_and(|key| key.in_use == "https://kv/keys/k/2")
        })
        .await;
    assert_eq!(process::find(&world.vm_file("paravisor.toml").display().to_string()), first);
    // Off, the VM still knows; and it starts with the document of then.
    world.want(vec![VmSpec { power: Power::Off, ..with_key(spec(2), "https://kv/keys/k/2") }]);
    let state = world.until_phase(VmPhase::Stopped, 2).await;
    assert_eq!(state.key.expect("a key").in_use, "https://kv/keys/k/2");
}

#[tokio::test]
async fn a_key_that_the_paravisor_refuses_is_reported_and_stops_nothing() {
    let world = World::new().await;
    world.behave("paravisor-behaviour", "refuse-key");
    world.want(vec![spec(1)]);
    world.until_phase(VmPhase::Booted, 1).await;
    world.want(vec![with_key(spec(1), "https://kv/keys/other/1")]);
    world
        .until("refused", |state| {
            let key = state.and_then(|state| state.key);
            key.and_then(|key| key.not_changed).is_some_and(|failure| failure.code == "PolicyRefused")
        })
        .await;
    assert_eq!(world.until_phase(VmPhase::Booted, 1).await.key.expect("a key").in_use, "https://kv/keys/k/1");
}
