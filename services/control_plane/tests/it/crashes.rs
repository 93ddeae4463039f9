//! The control plane dies at every step of a deployment and of a deletion; the end state is that of an undisturbed one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use control_plane::reconcile::attestation_service::AttestationService;
use control_plane::reconcile::vault_service::VaultService;
use control_plane::reconcile::{Interrupted, Probe};
use devkit::sim_host::SimHost;
use internal_api::host::VmPhase;
use serde_json::{Value, json};

use crate::installation::{Arm, Installation, group, vm_body, vm_path, wait_for};

/// Notes every point it passes.
#[derive(Default)]
pub struct Recorder(pub Mutex<Vec<&'static str>>);

impl Probe for Recorder {
    fn at(&self, point: &'static str) -> Result<(), Interrupted> {
        self.0.lock().unwrap().push(point);
        Ok(())
    }
}

/// Dies at the n-th point and is dead from then on.
pub struct DiesAt {
    pub point: usize,
    pub passed: AtomicUsize,
}

impl DiesAt {
    pub fn is_dead(&self) -> bool {
        self.passed.load(Ordering::SeqCst) > self.point
    }
}

impl Probe for DiesAt {
    fn at(&self, point: &'static str) -> Result<(), Interrupted> {
        let passed = self.passed.fetch_add(1, Ordering::SeqCst);
        if passed >= self.point { Err(Interrupted(point)) } else { Ok(()) }
    }
}

/// Fails the first time at each point, and at every second one again.
#[derive(Default)]
struct Flaky(Mutex<std::collections::BTreeMap<&'static str, usize>>);

impl Probe for Flaky {
    fn at(&self, point: &'static str) -> Result<(), Interrupted> {
        let mut seen = self.0.lock().unwrap();
        let count = seen.entry(point).or_default();
        *count += 1;
        if *count == 1 { Err(Interrupted(point)) } else { Ok(()) }
    }
}

/// What must be the same however often somebody died. Ids, times and the number of asks may differ.
#[derive(Debug, PartialEq)]
struct EndState {
    provisioning: Value,
    power: Value,
    phase: VmPhase,
    launches: u64,
    keys: usize,
    keys_ever: usize,
    disks: usize,
    key_matches: bool,
}

async fn end_state(installation: &Installation, arm: &Arm, host: &SimHost) -> EndState {
    let booted = || async {
        let up = host.world().vms.values().all(|vm| vm.phase == VmPhase::Booted);
        up.then_some(())
    };
    wait_for("the VM to boot", booted).await;
    let vm = arm.get(&format!("{}?$expand=instanceView", vm_path("vm1"))).await.body;
    let name = format!("vm-{}", vm["properties"]["vmId"].as_str().unwrap());
    let keys = installation.keys.keys.lock().unwrap();
    let world = host.world();
    let sim = world.vms.values().next().unwrap();
    let kid = keys.get(&name).and_then(|key| key.key.kid.clone());
    let document: Value = serde_json::from_str(&sim.spec.launch_document).unwrap();
    EndState {
        provisioning: vm["properties"]["provisioningState"].clone(),
        power: vm["properties"]["instanceView"]["statuses"][1]["code"].clone(),
        phase: sim.phase,
        launches: sim.launches,
        keys: keys.len(),
        keys_ever: installation.keys.created.lock().unwrap().len(),
        disks: 1,
        key_matches: kid.is_some() && document["keyId"].as_str() == kid.as_deref(),
    }
}

fn undisturbed() -> EndState {
    EndState {
        provisioning: json!("Succeeded"),
        power: json!("PowerState/running"),
        phase: VmPhase::Booted,
        launches: 1,
        keys: 1,
        keys_ever: 1,
        disks: 1,
        key_matches: true,
    }
}

async fn nothing_left(installation: &Installation, arm: &Arm, host: &SimHost) {
    assert!(installation.keys.keys.lock().unwrap().is_empty());
    assert!(host.world().vms.is_empty());
    let disks = arm.get(&format!("{}/providers/Microsoft.Compute/disks", group())).await;
    assert_eq!(disks.body["value"], json!([]));
    assert_eq!(arm.get(&vm_path("vm1")).await.status, 404);
}

#[tokio::test]
async fn dead_at_every_step_ends_as_undisturbed() {
    let recorder = Arc::new(Recorder::default());
    let mut installation = Installation::stopped().await;
    installation.start_with(recorder.clone()).await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    assert_eq!(end_state(&installation, &arm, &host).await, undisturbed());
    let creation = recorder.0.lock().unwrap().len();
    arm.finish(&arm.delete(&vm_path("vm1")).await).await;
    nothing_left(&installation, &arm, &host).await;
    let points = recorder.0.lock().unwrap().clone();
    assert_eq!((creation, points.len()), (7, 10), "{points:?}");
    drop((host, installation));
    for point in 0..points.len() {
        die_at(point, creation).await;
    }
}

/// One whole life in which the control plane is dead from that point on until it is started again.
async fn die_at(point: usize, creation: usize) {
    let probe = Arc::new(DiesAt { point, passed: AtomicUsize::new(0) });
    let mut installation = Installation::stopped().await;
    installation.start_with(probe.clone()).await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_group().await;
    let answer = arm.put(&vm_path("vm1"), &vm_body()).await;
    if point < creation {
        wait_for("the death", || async { probe.is_dead().then_some(()) }).await;
        installation.kill().await;
        installation.start().await;
    }
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded", "dead at {point}");
    assert_eq!(end_state(&installation, &arm, &host).await, undisturbed(), "dead at {point}");
    let answer = arm.delete(&vm_path("vm1")).await;
    if point >= creation {
        wait_for("the death", || async { probe.is_dead().then_some(()) }).await;
        installation.kill().await;
        installation.start().await;
    }
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded", "dead at {point}");
    nothing_left(&installation, &arm, &host).await;
}

#[tokio::test]
async fn failing_once_at_every_step_ends_as_undisturbed() {
    let mut installation = Installation::stopped().await;
    installation.start_with(Arc::new(Flaky::default())).await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    assert_eq!(end_state(&installation, &arm, &host).await, undisturbed());
    arm.finish(&arm.delete(&vm_path("vm1")).await).await;
    nothing_left(&installation, &arm, &host).await;
}

#[tokio::test]
async fn repeating_every_step_changes_nothing() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    assert_eq!(end_state(&installation, &arm, &host).await, undisturbed());
    let app = installation.app();
    let keys = control_plane::reconcile::key_service::KeyService::new(
        &app.config.keys,
        app.tokens.clone(),
        app.directory.home(),
    );
    let again = control_plane::reconcile::Reconcilers {
        app: app.clone(),
        keys: keys.unwrap(),
        vaults: VaultService::new(&app).unwrap(),
        attestation: AttestationService::new(&app).unwrap(),
        polled: Arc::default(),
        probe: Arc::new(Recorder::default()),
    };
    let before = app.store.vms().await.unwrap();
    for _ in 0..3 {
        again.pass().await.unwrap();
    }
    assert_eq!(app.store.vms().await.unwrap(), before);
    assert_eq!(end_state(&installation, &arm, &host).await, undisturbed());
}

#[tokio::test]
async fn a_host_agent_that_dies_in_every_phase_ends_as_undisturbed() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let answer = arm.put(&vm_path("vm1"), &vm_body()).await;
    let mut host = installation.host();
    for phase in [VmPhase::Starting, VmPhase::Running, VmPhase::Booted] {
        let reached = || async {
            let passed = host.world().vms.values().any(|vm| order(vm.phase) >= order(phase));
            passed.then_some(())
        };
        wait_for("the phase", reached).await;
        let (options, world) = host.crash();
        host = SimHost::resume(options, world).unwrap();
    }
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    assert_eq!(end_state(&installation, &arm, &host).await, undisturbed());
}

fn order(phase: VmPhase) -> usize {
    [VmPhase::Starting, VmPhase::Running, VmPhase::Booted].iter().position(|one| *one == phase).unwrap_or(0)
}

#[tokio::test]
async fn a_key_service_that_is_away_is_waited_for_and_one_that_refuses_is_believed() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_group().await;
    installation.keys.down.store(true, Ordering::Relaxed);
    let answer = arm.put(&vm_path("vm1"), &vm_body()).await;
    let detail = wait_for("the reason to show", || async {
        let vm = arm.get(&vm_path("vm1")).await.body;
        let detail = vm["properties"]["casemate"]["detail"].as_str()?.to_owned();
        detail.starts_with("waiting for the key service").then_some(detail)
    })
    .await;
    assert!(detail.contains("503"), "{detail}");
    installation.keys.down.store(false, Ordering::Relaxed);
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    assert_eq!(end_state(&installation, &arm, &host).await, undisturbed());
    installation.keys.refusing.store(true, Ordering::Relaxed);
    let answer = arm.put(&vm_path("vm2"), &vm_body()).await;
    let end = arm.finish(&answer).await;
    assert_eq!((&end["status"], &end["error"]["code"]), (&json!("Failed"), &json!("PlatformKeyRefused")));
    installation.keys.refusing.store(false, Ordering::Relaxed);
    let again = arm.put(&vm_path("vm2"), &vm_body()).await;
    assert_eq!((again.status, &arm.finish(&again).await["status"]), (200, &json!("Succeeded")));
}

#[tokio::test]
async fn somebody_elses_key_under_the_vms_name_is_not_used() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    installation.keys.down.store(true, Ordering::Relaxed);
    let answer = arm.put(&vm_path("vm1"), &vm_body()).await;
    let vm = arm.get(&vm_path("vm1")).await.body;
    let name = format!("vm-{}", vm["properties"]["vmId"].as_str().unwrap());
    let planted = public_api::keys::KeyBundle {
        key: public_api::jwk::Jwk {
            kid: Some("https://keys.test/keys/planted/1".into()),
            ..Default::default()
        },
        attributes: Default::default(),
        tags: Default::default(),
        release_policy: Some(public_api::keys::KeyReleasePolicy {
            content_type: None,
            data: br#"{"version":"1.0.0","anyOf":[]}"#.to_vec(),
            immutable: false,
        }),
    };
    installation.keys.keys.lock().unwrap().insert(name, planted);
    installation.keys.down.store(false, Ordering::Relaxed);
    let end = arm.finish(&answer).await;
    assert_eq!((&end["status"], &end["error"]["code"]), (&json!("Failed"), &json!("PlatformKeyForeign")));
}

#[tokio::test]
async fn a_repeated_put_after_a_lost_answer_makes_no_second_vm() {
    let mut installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let first = arm.put(&vm_path("vm1"), &vm_body()).await;
    installation.kill().await;
    installation.start().await;
    let second = arm.put(&vm_path("vm1"), &vm_body()).await;
    assert_eq!((first.status, second.status), (201, 200));
    assert_eq!(first.body["properties"]["vmId"], second.body["properties"]["vmId"]);
    let host = installation.host();
    assert_eq!(arm.finish(&first).await["status"], "Succeeded");
    assert_eq!(arm.finish(&second).await["status"], "Succeeded");
    assert_eq!(end_state(&installation, &arm, &host).await, undisturbed());
}
