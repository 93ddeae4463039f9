//! Another key for a VM: rotation of an encryption set, platform to customer key and back, and deaths in between.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use devkit::sim_host::{SimHost, SimVm};
use internal_api::host::VmPhase;
use internal_api::launch::LaunchDocument;
use public_api::jwk::Jwk;
use public_api::keys::{KeyAttributes, KeyBundle};
use reqwest::Method;
use serde_json::{Value, json};

use crate::crashes::{DiesAt, Recorder};
use crate::installation::{Answer, Arm, Installation, group, vm_body, vm_path, wait_for};

const FIRST: &str = "https://keys.test/keys/mine/1";
const SECOND: &str = "https://keys.test/keys/mine/2";
const CUSTOMER: &str = "ConfidentialVM_DiskEncryptedWithCustomerKey";
const PLATFORM: &str = "ConfidentialVM_DiskEncryptedWithPlatformKey";

fn set_path() -> String {
    format!("{}/providers/Microsoft.Compute/diskEncryptionSets/des", group())
}

fn set_body(url: &str) -> Value {
    json!({"location": "local", "identity": {"type": "SystemAssigned"}, "properties": {
        "encryptionType": "ConfidentialVmEncryptedWithCustomerKey", "activeKey": {"keyUrl": url}}})
}

/// A set with the first key, and a VM under it that has booted.
async fn vm_under_a_set(installation: &Installation) -> (SimHost, Arm) {
    let (host, arm) = (installation.host(), installation.arm().await);
    arm.make_group().await;
    assert_eq!(arm.put(&set_path(), &set_body(FIRST)).await.status, 200);
    let mut body = vm_body();
    body["properties"]["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"]["diskEncryptionSet"] =
        json!({"id": set_path()});
    let answer = arm.put(&vm_path("vm1"), &body).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    until(&host, "the VM's first key", |vm| in_use(vm) == FIRST).await;
    (host, arm)
}

fn in_use(vm: &SimVm) -> &str {
    vm.key_in_use.as_deref().unwrap_or_default()
}

fn document(vm: &SimVm) -> LaunchDocument {
    serde_json::from_str(&vm.spec.launch_document).unwrap()
}

async fn until(host: &SimHost, what: &str, right: impl Fn(&SimVm) -> bool) {
    wait_for(what, || async { host.world().vms.values().all(&right).then_some(()) }).await;
}

async fn rotate(arm: &Arm, url: &str) -> Answer {
    let body = json!({"properties": {"activeKey": {"keyUrl": url}}});
    arm.call(Method::PATCH, &set_path(), Some(&body)).await
}

async fn change_disk(arm: &Arm, profile: Value) -> Answer {
    let vm = arm.get(&vm_path("vm1")).await.body;
    let disk = vm["properties"]["storageProfile"]["osDisk"]["managedDisk"]["id"].as_str().unwrap();
    arm.call(Method::PATCH, disk, Some(&json!({"properties": {"securityProfile": profile}}))).await
}

#[tokio::test]
async fn a_set_rotates_under_a_running_vm() {
    let installation = Installation::new().await;
    let (host, arm) = vm_under_a_set(&installation).await;
    host.world().keys_stay = true;
    let answer = rotate(&arm, SECOND).await;
    assert_eq!(answer.body["properties"]["provisioningState"], "Updating", "{}", answer.text);
    assert_eq!(answer.body["properties"]["previousKeys"][0]["keyUrl"], FIRST);
    until(&host, "the new launch document", |vm| document(vm).key_id == SECOND).await;
    let shown = arm.get(&vm_path("vm1")).await.body;
    let key = &shown["properties"]["casemate"]["key"];
    assert_eq!(
        (&key["wanted"], &key["inUse"], &key["state"]),
        (&json!(SECOND), &json!(FIRST), &json!("changing"))
    );
    let operation = arm.send(Method::GET, answer.header("azure-asyncoperation"), None).await;
    assert_eq!(operation.body["status"], "InProgress", "the VM has not moved");
    host.world().keys_stay = false;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    let shown = arm.get(&vm_path("vm1")).await.body;
    assert_eq!(shown["properties"]["casemate"]["key"]["state"], "inUse");
    assert_eq!(arm.get(&set_path()).await.body["properties"]["provisioningState"], "Succeeded");
    let world = host.world();
    let vm = world.vms.values().next().unwrap();
    assert_eq!((in_use(vm), vm.launches, vm.phase), (SECOND, 1, VmPhase::Booted), "without a restart");
    assert_eq!(document(vm).first_key_id.as_deref(), Some(FIRST));
}

#[tokio::test]
async fn a_stopped_vm_does_not_hold_a_rotation_up_and_moves_when_it_starts() {
    let installation = Installation::new().await;
    let (host, arm) = vm_under_a_set(&installation).await;
    let stop = arm.call(Method::POST, &format!("{}/deallocate", vm_path("vm1")), None).await;
    assert_eq!(arm.finish(&stop).await["status"], "Succeeded");
    let answer = rotate(&arm, SECOND).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    until(&host, "the new launch document", |vm| document(vm).key_id == SECOND && in_use(vm) == FIRST).await;
    let start = arm.call(Method::POST, &format!("{}/start", vm_path("vm1")), None).await;
    assert_eq!(arm.finish(&start).await["status"], "Succeeded");
    until(&host, "the move", |vm| in_use(vm) == SECOND).await;
    // Back to the first: it is no longer among the previous ones.
    let answer = rotate(&arm, FIRST).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    let previous = arm.get(&set_path()).await.body["properties"]["previousKeys"].clone();
    assert_eq!((previous.as_array().unwrap().len(), &previous[0]["keyUrl"]), (1, &json!(SECOND)));
    until(&host, "the way back", |vm| in_use(vm) == FIRST && document(vm).first_key_id.is_none()).await;
}

#[tokio::test]
async fn a_set_follows_the_newest_version_of_its_key() {
    let installation = Installation::new().await;
    let (host, arm) = vm_under_a_set(&installation).await;
    let base = installation.config.keys.url.clone();
    let version = |number: u32| format!("{base}/keys/mine/{number}");
    let key = Jwk { kid: Some(version(2)), ..Jwk::default() };
    let (attributes, tags) = (KeyAttributes::default(), std::collections::BTreeMap::new());
    let bundle = KeyBundle { key, attributes, tags, release_policy: None };
    installation.keys.keys.lock().unwrap().insert("mine".to_owned(), bundle);
    let mut body = set_body(&version(1));
    body["properties"]["rotationToLatestKeyVersionEnabled"] = json!(true);
    assert_eq!(arm.put(&set_path(), &body).await.status, 200);
    until(&host, "the newest version", |vm| in_use(vm) == version(2)).await;
    let set = arm.get(&set_path()).await.body["properties"].clone();
    assert_eq!(set["activeKey"]["keyUrl"], version(2));
    assert!(
        set["lastKeyRotationTimestamp"].is_string() && set.get("autoKeyRotationError").is_none(),
        "{set}"
    );
}

#[tokio::test]
async fn a_set_that_follows_a_key_of_another_vault_says_that_it_cannot() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let mut body = set_body(FIRST);
    body["properties"]["rotationToLatestKeyVersionEnabled"] = json!(true);
    assert_eq!(arm.put(&set_path(), &body).await.status, 200);
    wait_for("the error", || async {
        let set = arm.get(&set_path()).await.body;
        set["properties"]["autoKeyRotationError"]["code"].is_string().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_vm_goes_from_its_platform_key_to_the_tenants_and_back() {
    let installation = Installation::new().await;
    let (host, arm) = (installation.host(), installation.arm().await);
    arm.make_vm("vm1").await;
    until(&host, "the platform key", |vm| in_use(vm).contains("/keys/vm-")).await;
    let platform = in_use(host.world().vms.values().next().unwrap()).to_owned();
    arm.put(&set_path(), &set_body(FIRST)).await;
    let customer = json!({"securityType": CUSTOMER, "secureVMDiskEncryptionSetId": set_path()});
    let changed = change_disk(&arm, customer).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(changed.body["properties"]["securityProfile"]["securityType"], CUSTOMER);
    until(&host, "the tenant's key", |vm| in_use(vm) == FIRST).await;
    // The platform key's owner is the platform, and has said that this key may follow.
    let name = platform.split('/').nth(4).unwrap();
    let consent = installation.keys.keys.lock().unwrap()[name].tags.clone();
    assert_eq!(consent["casemate-successor"], FIRST);
    assert!(consent.contains_key("casemate-vm"), "its other tags are kept: {consent:?}");
    let vm = arm.get(&vm_path("vm1")).await.body["properties"].clone();
    let profile = &vm["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"];
    assert_eq!(profile["diskEncryptionSet"]["id"], set_path());
    assert_eq!((arm.delete(&set_path()).await.status, vm["casemate"]["keyId"].as_str()), (409, Some(FIRST)));

    let changed = change_disk(&arm, json!({"securityType": PLATFORM})).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    until(&host, "the platform key again", |vm| in_use(vm) == platform).await;
    let vm = arm.get(&vm_path("vm1")).await.body["properties"].clone();
    let profile = &vm["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"];
    assert!(profile.get("diskEncryptionSet").is_none(), "{profile}");
    assert_eq!(arm.delete(&set_path()).await.status, 200);
    arm.finish(&arm.delete(&vm_path("vm1")).await).await;
    assert!(installation.keys.keys.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_platform_key_goes_with_a_vm_that_has_moved_from_it() {
    let installation = Installation::new().await;
    let (host, arm) = (installation.host(), installation.arm().await);
    arm.make_vm("vm1").await;
    arm.put(&set_path(), &set_body(FIRST)).await;
    // By the VM's own body, as clients send it back.
    let mut vm = arm.get(&vm_path("vm1")).await.body;
    vm["properties"]["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"]["diskEncryptionSet"] =
        json!({"id": set_path()});
    let answer = arm.put(&vm_path("vm1"), &vm).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded", "{}", answer.text);
    until(&host, "the tenant's key", |vm| in_use(vm) == FIRST).await;
    assert_eq!(installation.keys.keys.lock().unwrap().len(), 1);
    arm.finish(&arm.delete(&vm_path("vm1")).await).await;
    assert!(installation.keys.keys.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bodies_that_ask_for_no_possible_key() {
    let installation = Installation::new().await;
    let (_host, arm) = (installation.host(), installation.arm().await);
    arm.make_vm("vm1").await;
    arm.put(&set_path(), &set_body(FIRST)).await;
    let other = set_path().replace("/des", "/none");
    for (profile, status) in [
        (json!({"securityType": PLATFORM, "secureVMDiskEncryptionSetId": set_path()}), 400),
        (json!({"securityType": CUSTOMER}), 400),
        (json!({"securityType": "ConfidentialVM_VMGuestStateOnlyEncryptedWithPlatformKey"}), 400),
        (json!({"securityType": CUSTOMER, "secureVMDiskEncryptionSetId": other}), 400),
        (json!({"secureVMDiskEncryptionSetId": set_path()}), 400),
        (json!({"securityType": PLATFORM}), 200),
    ] {
        let answer = change_disk(&arm, profile.clone()).await;
        assert_eq!(answer.status, status, "{profile}: {}", answer.text);
    }
}

/// The control plane is dead from each point of a change on until it is started again; the VM ends under the wanted key.
#[tokio::test]
async fn dead_at_every_step_of_a_change_of_key() {
    let recorder = Arc::new(Recorder::default());
    let creation = live(recorder.clone(), || None).await;
    let points = recorder.0.lock().unwrap().clone();
    let changes = &points[creation..];
    assert!(changes.contains(&"before letting another key follow"), "{changes:?}");
    assert!(changes.contains(&"after noting another key"), "{changes:?}");
    for point in creation..points.len() {
        let probe = Arc::new(DiesAt { point, passed: AtomicUsize::new(0) });
        let dies = probe.clone();
        live(probe, move || Some(dies.is_dead())).await;
    }
}

/// A VM is made, taken under a customer's key, and that key is rotated. Returns how many points its creation passed.
async fn live(
    probe: Arc<dyn control_plane::reconcile::Probe>,
    dead: impl Fn() -> Option<bool> + 'static,
) -> usize {
    let mut installation = Installation::stopped().await;
    let counted = Arc::new(Recorder::default());
    installation.start_with(Arc::new(Both(probe, counted.clone()))).await;
    let (host, arm) = (installation.host(), installation.arm().await);
    arm.make_vm("vm1").await;
    arm.put(&set_path(), &set_body(FIRST)).await;
    until(&host, "the platform key", |vm| in_use(vm).contains("/keys/vm-")).await;
    let creation = counted.0.lock().unwrap().len();
    change_disk(&arm, json!({"securityType": CUSTOMER, "secureVMDiskEncryptionSetId": set_path()})).await;
    let mut alive = true;
    for url in [FIRST, SECOND] {
        let rotated = if url == SECOND { Some(rotate(&arm, SECOND).await) } else { None };
        wait_for("the move, or the death", || async {
            let moved = host.world().vms.values().all(|vm| in_use(vm) == url);
            (moved || dead() == Some(true)).then_some(())
        })
        .await;
        if alive && dead() == Some(true) {
            installation.kill().await;
            installation.start().await;
            alive = false;
        }
        until(&host, "the move", |vm| in_use(vm) == url).await;
        if let Some(answer) = rotated {
            assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
        }
    }
    creation
}

/// Tells two.
struct Both(Arc<dyn control_plane::reconcile::Probe>, Arc<Recorder>);

impl control_plane::reconcile::Probe for Both {
    fn at(&self, point: &'static str) -> Result<(), control_plane::reconcile::Interrupted> {
        self.1.at(point)?;
        self.0.at(point)
    }
}
