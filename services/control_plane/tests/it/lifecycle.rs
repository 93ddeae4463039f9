//! A VM's life: created, shown, stopped, started, changed, deleted.

use internal_api::host::VmPhase;
use internal_api::launch::{LaunchDocument, ProvisioningData, sha256_hex};
use internal_api::paravisor::Failure;
use reqwest::Method;
use serde_json::{Value, json};

use crate::installation::{Arm, Installation, SSH_KEY, VERSION, group, vm_body, vm_path, wait_for};

fn power(view: &Value) -> String {
    view["statuses"][1]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_vm_is_created_shown_stopped_started_and_deleted() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    let vm = arm.make_vm("vm1").await;
    assert_eq!(vm["properties"]["provisioningState"], "Succeeded");
    assert_eq!(vm["properties"]["casemate"]["trustRoot"], "development");
    assert_eq!(vm["properties"]["osProfile"].get("customData"), None);
    let view = arm.get(&format!("{}/instanceView", vm_path("vm1"))).await.body;
    assert_eq!(view["statuses"][0]["code"], "ProvisioningState/succeeded");
    assert_eq!(power(&view), "PowerState/running");
    for (action, expected) in [
        ("powerOff", "stopped"),
        ("start", "running"),
        ("restart", "running"),
        ("deallocate", "deallocated"),
        ("start", "running"),
    ] {
        let answer = arm.post(&format!("{}/{action}", vm_path("vm1"))).await;
        assert_eq!(answer.status, 202, "{action}: {}", answer.text);
        assert_eq!(arm.finish(&answer).await["status"], "Succeeded", "{action}");
        let view = arm.get(&format!("{}/instanceView", vm_path("vm1"))).await.body;
        assert_eq!(power(&view), format!("PowerState/{expected}"), "after {action}");
    }
    assert_eq!(host.world().vms.values().next().unwrap().launches, 4);
    let answer = arm.delete(&vm_path("vm1")).await;
    assert_eq!(answer.status, 202);
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    assert_eq!(arm.get(&vm_path("vm1")).await.status, 404);
    assert_eq!(arm.delete(&vm_path("vm1")).await.status, 204);
    assert!(host.world().vms.is_empty());
    assert!(installation.keys.keys.lock().unwrap().is_empty());
    let disks = arm.get(&format!("{}/providers/Microsoft.Compute/disks", group())).await;
    assert_eq!(disks.body["value"], json!([]));
}

#[tokio::test]
async fn what_the_host_gets_is_bound_by_the_launch_document_and_the_keys_policy() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    let vm = arm.make_vm("vm1").await;
    let spec = host.world().vms.values().next().unwrap().spec.clone();
    let document: LaunchDocument = serde_json::from_str(&spec.launch_document).unwrap();
    let data: ProvisioningData = serde_json::from_str(&spec.provisioning_data).unwrap();
    assert_eq!(data.ssh_public_keys, [SSH_KEY]);
    assert_eq!(data.custom_data.as_deref(), Some("I2Nsb3VkLWNvbmZpZwo="));
    assert_eq!(document.provisioning_digest, sha256_hex(spec.provisioning_data.as_bytes()));
    assert_eq!(document.vm_id.to_lowercase(), vm["properties"]["vmId"].as_str().unwrap());
    assert_eq!(document.vm_id, spec.vm_id);
    assert_eq!(document.resource_id, vm["id"].as_str().unwrap());
    assert_eq!(document.image_digest, sha256_hex(b"debian-13"));
    let name = format!("vm-{}", spec.vm_id.to_lowercase());
    let key = installation.keys.keys.lock().unwrap()[&name].clone();
    assert_eq!(Some(&document.key_id), key.key.kid.as_ref());
    assert_eq!(key.attributes.exportable, Some(true));
    let policy: Value = serde_json::from_slice(&key.release_policy.unwrap().data).unwrap();
    let conditions = policy["anyOf"][0]["allOf"].as_array().unwrap();
    let claim =
        |name: &str| conditions.iter().find(|one| one["claim"] == name).map(|one| one["equals"].clone());
    assert_eq!(policy["anyOf"][0]["authority"], installation.config.attestation_url.as_str());
    assert_eq!(claim("x-ms-inittime.vmId"), Some(json!(spec.vm_id)));
    assert_eq!(claim("x-ms-inittime.provisioningDigest"), Some(json!(document.provisioning_digest)));
    assert_eq!(claim("x-ms-inittime.imageDigest"), Some(json!(document.image_digest)));
    assert_eq!(claim("x-casemate-nonce-source"), Some(json!("server")));
    assert_eq!(claim("x-casemate-trust-root"), Some(json!("development")));
}

#[tokio::test]
async fn the_release_token_may_only_release_and_is_fresh_with_each_answer() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    let token = |host: &devkit::sim_host::SimHost| {
        host.world().vms.values().next().unwrap().spec.release_token.clone()
    };
    let first = token(&host);
    let payload = public_api::encoding::from_base64_any(first.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["roles"], json!(["Key Vault Crypto Service Release User"]));
    assert_eq!(claims["aud"], "https://vault.azure.net");
    let refused = installation.bare(Some(first.clone())).get(&group()).await;
    assert_eq!((refused.status, refused.code()), (401, "InvalidAuthenticationTokenAudience"));
    arm.finish(&arm.post(&format!("{}/restart", vm_path("vm1"))).await).await;
    assert_ne!(token(&host), first);
}

#[tokio::test]
async fn a_hosts_refusal_reaches_the_operation_with_its_five_parts() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_group().await;
    let failure = Failure {
        code: "RollbackRefused".into(),
        claim: "x-ms-runtime.guest-state.generation".into(),
        expected: "4 or 5".into(),
        actual: "3".into(),
        rule: "guest state never goes back".into(),
        remedy: "restore the newest guest state".into(),
        transient: false,
    };
    host.world().failing.insert("vm1".into(), failure);
    let answer = arm.put(&vm_path("vm1"), &vm_body()).await;
    let end = arm.finish(&answer).await;
    assert_eq!(end["status"], "Failed");
    assert_eq!(end["error"]["code"], "RollbackRefused");
    assert_eq!(
        end["error"]["message"],
        "x-ms-runtime.guest-state.generation: expected 4 or 5, found 3 (rule: guest state never goes back); restore the newest guest state"
    );
    let monitor = arm.send(Method::GET, answer.header("location"), None).await;
    assert_eq!((monitor.status, monitor.code()), (409, "RollbackRefused"));
    let vm = arm.get(&format!("{}?$expand=instanceView", vm_path("vm1"))).await.body;
    assert_eq!(vm["properties"]["provisioningState"], "Failed");
    assert_eq!(vm["properties"]["casemate"]["failure"]["actual"], "3");
    let statuses = &vm["properties"]["instanceView"]["statuses"];
    assert_eq!(statuses[0]["code"], "ProvisioningState/failed/RollbackRefused");
    assert_eq!(power(&vm["properties"]["instanceView"]), "PowerState/stopped");
    host.world().failing.clear();
    let again = arm.post(&format!("{}/start", vm_path("vm1"))).await;
    assert_eq!(arm.finish(&again).await["status"], "Succeeded");
    let failed_before = arm.finish(&answer).await;
    assert_eq!(failed_before["status"], "Failed", "a later success does not rewrite an operation's end");
    assert_eq!(arm.get(&vm_path("vm1")).await.body["properties"]["provisioningState"], "Succeeded");
}

#[tokio::test]
async fn a_vm_that_falls_after_it_came_up_is_shown_as_such() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    let before = arm.get(&vm_path("vm1")).await.body;
    assert_eq!(before["properties"]["casemate"]["failure"], Value::Null);
    wait_for("the VM to boot", || async {
        let booted = host.world().vms.values().all(|vm| vm.phase == VmPhase::Booted);
        booted.then_some(())
    })
    .await;
    host.world().vms.values_mut().for_each(|vm| vm.phase = VmPhase::Failed);
    arm.call(Method::PATCH, &vm_path("vm1"), Some(&json!({"tags": {"a": "b"}}))).await;
    let vm = wait_for("the failure to show", || async {
        let vm = arm.get(&vm_path("vm1")).await.body;
        vm["properties"]["casemate"]["failure"].is_object().then_some(vm)
    })
    .await;
    assert_eq!(vm["properties"]["provisioningState"], "Succeeded");
    assert_eq!(vm["properties"]["casemate"]["failure"]["code"], "HostReportedFailure");
    let answer = arm.post(&format!("{}/start", vm_path("vm1"))).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    assert_eq!(host.world().vms.values().next().unwrap().launches, 2);
}

async fn stale(arm: &Arm, name: &str, pointer: &str, value: Value) -> String {
    let mut body = arm.get(&vm_path(name)).await.body;
    *body.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not in the VM")) = value;
    arm.put(&vm_path(name), &body).await.error()
}

#[tokio::test]
async fn a_put_of_what_was_read_changes_nothing_and_fixed_properties_stay() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    let before = arm.make_vm("vm1").await;
    let mut body = before.clone();
    body["tags"] = json!({"new": "label"});
    let answer = arm.put(&vm_path("vm1"), &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    let after = arm.get(&vm_path("vm1")).await.body;
    assert_eq!(after["tags"], json!({"new": "label"}));
    assert_eq!(after["properties"]["vmId"], before["properties"]["vmId"]);
    assert_eq!(host.world().vms.values().next().unwrap().launches, 1);
    assert_eq!(arm.put(&vm_path("vm1"), &vm_body()).await.status, 200, "the first body again");
    for (pointer, value) in [
        ("/properties/osProfile/adminUsername", json!("mallory")),
        ("/properties/osProfile/linuxConfiguration/ssh/publicKeys", json!([])),
        ("/properties/storageProfile/imageReference/offer", json!("plain")),
        (
            "/properties/storageProfile/osDisk/managedDisk/securityProfile/securityEncryptionType",
            json!("VMGuestStateOnly"),
        ),
        ("/properties/securityProfile/uefiSettings/secureBootEnabled", json!(false)),
        ("/properties/securityProfile/securityType", json!("TrustedLaunch")),
        ("/properties/storageProfile/osDisk/name", json!("other")),
    ] {
        let error = stale(&arm, "vm1", pointer, value).await;
        assert!(error.starts_with("409 PropertyChangeNotAllowed: Changing property '"), "{pointer}: {error}");
    }
    let mut body = vm_body();
    body["properties"]["osProfile"]["customData"] = json!("b3RoZXI=");
    let error = arm.put(&vm_path("vm1"), &body).await.error();
    assert_eq!(
        error,
        "409 PropertyChangeNotAllowed: Changing property 'osProfile.customData' is not allowed."
    );
}

#[tokio::test]
async fn a_size_changes_only_while_the_vm_is_off() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    let size = json!("Casemate_Dev2");
    let error = stale(&arm, "vm1", "/properties/hardwareProfile/vmSize", size.clone()).await;
    assert!(error.starts_with("409 OperationNotAllowed: Unable to resize"), "{error}");
    arm.finish(&arm.post(&format!("{}/deallocate", vm_path("vm1"))).await).await;
    let mut body = arm.get(&vm_path("vm1")).await.body;
    body["properties"]["hardwareProfile"]["vmSize"] = size;
    let answer = arm.put(&vm_path("vm1"), &body).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded", "{}", answer.text);
    arm.finish(&arm.post(&format!("{}/start", vm_path("vm1"))).await).await;
    assert_eq!(host.world().vms.values().next().unwrap().spec.vcpus, 2);
}

#[tokio::test]
async fn evidence_is_kept_and_handed_out_as_it_came() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    arm.put(&vm_path("vm1"), &vm_body()).await;
    let evidence = format!("{}/attestationEvidence", vm_path("vm1"));
    assert_eq!(arm.get(&evidence).await.code(), "EvidenceNotFound");
    let host = installation.host();
    let bundle = wait_for("evidence", || async {
        let answer = arm.get(&evidence).await;
        (answer.status == 200).then_some(answer.body)
    })
    .await;
    let bundle: public_api::attestation::EvidenceBundle = serde_json::from_value(bundle).unwrap();
    let spec = host.world().vms.values().next().unwrap().spec.clone();
    assert_eq!(bundle.init_time_data, spec.launch_document.into_bytes());
}

#[tokio::test]
async fn a_serial_log_opens_with_its_signed_url_only() {
    let installation = Installation::new().await;
    let _host = installation.host();
    let arm = installation.arm().await;
    let vm = arm.make_vm("vm1").await;
    let id = vm["properties"]["vmId"].as_str().unwrap().to_uppercase();
    std::fs::write(installation.path(&format!("{id}.log")), "hello from the guest").unwrap();
    let answer = arm.post(&format!("{}/retrieveBootDiagnosticsData", vm_path("vm1"))).await;
    let url = answer.body["serialConsoleLogBlobUri"].as_str().unwrap();
    let nobody = installation.bare(None);
    assert_eq!(nobody.send(Method::GET, url, None).await.text, "hello from the guest");
    for wrong in [
        url.replace("sig=", "sig=A"),
        url.replace("se=1", "se=9"),
        url.replace(&id, &id.to_lowercase()),
        url.split('?').next().unwrap().to_owned(),
    ] {
        assert_eq!(nobody.send(Method::GET, &wrong, None).await.status, 403, "{wrong}");
    }
}

#[tokio::test]
async fn a_tenants_own_key_is_used_as_it_is() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_group().await;
    let set = format!("{}/providers/Microsoft.Compute/diskEncryptionSets/des", group());
    let url = "https://localhost:9/keys/mine/0123456789abcdef0123456789abcdef";
    let answer = arm
        .put(
            &set,
            &json!({"location": "local", "identity": {"type": "SystemAssigned"}, "properties": {
                "encryptionType": "ConfidentialVmEncryptedWithCustomerKey", "activeKey": {"keyUrl": url}}}),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut body = vm_body();
    body["properties"]["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"]["diskEncryptionSet"] =
        json!({"id": set.to_uppercase()});
    let answer = arm.put(&vm_path("vm1"), &body).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded", "{}", answer.text);
    let spec = host.world().vms.values().next().unwrap().spec.clone();
    let document: LaunchDocument = serde_json::from_str(&spec.launch_document).unwrap();
    assert_eq!(document.key_id, url);
    assert!(installation.keys.created.lock().unwrap().is_empty());
    let disks = arm.get(&format!("{}/providers/Microsoft.Compute/disks", group())).await;
    let profile = &disks.body["value"][0]["properties"]["securityProfile"];
    assert_eq!(profile["securityType"], "ConfidentialVM_DiskEncryptedWithCustomerKey");
    let in_use = arm.delete(&set).await;
    assert_eq!((in_use.status, in_use.code()), (409, "OperationNotAllowed"));
    let associated = arm.get(&format!("{set}/associatedResources")).await;
    assert_eq!(associated.body["value"][0], disks.body["value"][0]["id"]);
    arm.finish(&arm.delete(&vm_path("vm1")).await).await;
    assert_eq!(arm.delete(&set).await.status, 200);
}

#[tokio::test]
async fn a_group_goes_with_everything_in_it() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    let vnet = format!("{}/providers/Microsoft.Network/virtualNetworks/vnet1", group());
    assert_eq!(arm.put(&vnet, &json!({"location": "local"})).await.status, 201);
    host.world().frozen = true;
    let answer = arm.delete(&group()).await;
    assert_eq!(answer.status, 202);
    let busy = arm.put(&vm_path("vm2"), &vm_body()).await;
    assert_eq!((busy.status, busy.code()), (409, "ResourceGroupBeingDeleted"));
    assert_eq!(arm.get(&group()).await.body["properties"]["provisioningState"], "Deleting");
    host.world().frozen = false;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    assert_eq!(arm.call(Method::HEAD, &group(), None).await.status, 404);
    assert_eq!(arm.get(&vnet).await.status, 404);
    arm.make_group().await;
    let disks =
        format!("/subscriptions/{}/providers/Microsoft.Compute/disks", crate::installation::SUBSCRIPTION);
    assert_eq!(arm.get(&disks).await.body["value"], json!([]));
}

#[tokio::test]
async fn a_forced_deletion_does_not_wait_for_the_host_and_the_host_cleans_up_later() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    let (options, world) = host.crash();
    let answer = arm.delete(&vm_path("vm1")).await;
    let url = answer.header("azure-asyncoperation").to_owned();
    assert_eq!(arm.send(Method::GET, &url, None).await.body["status"], "InProgress");
    let detail = wait_for("the reason to show", || async {
        let vm = arm.get(&vm_path("vm1")).await.body;
        let detail = vm["properties"]["casemate"]["detail"].as_str()?.to_owned();
        detail.starts_with("waiting").then_some(detail)
    })
    .await;
    assert_eq!(detail, "waiting for host host-1 to remove the VM and its disk");
    let start = arm.post(&format!("{}/start", vm_path("vm1"))).await;
    assert_eq!((start.status, start.code()), (409, "OperationNotAllowed"));
    let forced = arm.delete(&format!("{}?forceDeletion=true", vm_path("vm1"))).await;
    assert_eq!(arm.finish(&forced).await["status"], "Succeeded");
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded");
    let back = devkit::sim_host::SimHost::resume(options, world).unwrap();
    wait_for("the host to clean up", || async { back.world().vms.is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_group_of_vms_on_a_lost_host_can_be_forced_to_go() {
    let installation = Installation::new().await;
    let host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    drop(host);
    let waiting = arm.delete(&group()).await;
    assert_eq!(waiting.status, 202);
    assert_eq!(arm.get(&vm_path("vm1")).await.status, 200, "its host has not let go of it");
    let forced = format!("{}?forceDeletionTypes=Microsoft.Compute/virtualMachines", group());
    assert_eq!(arm.finish(&arm.delete(&forced).await).await["status"], "Succeeded");
    assert_eq!(arm.finish(&waiting).await["status"], "Succeeded");
}

#[tokio::test]
async fn an_operation_is_another_subscriptions_business_only_there() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let answer = arm.put(&vm_path("vm1"), &vm_body()).await;
    let url = answer.header("azure-asyncoperation").to_owned();
    assert!(url.ends_with(&format!("?api-version={VERSION}")), "{url}");
    let second = url.replace(crate::installation::SUBSCRIPTION, crate::installation::SECOND_SUBSCRIPTION);
    let reader = installation.arm_as(crate::installation::TENANT, crate::installation::READER).await;
    assert_eq!(reader.send(Method::GET, &url, None).await.status, 200);
    assert_eq!(reader.send(Method::GET, &second, None).await.status, 404);
    let stranger =
        installation.arm_as(crate::installation::OTHER_TENANT, crate::installation::STRANGER).await;
    assert_eq!(stranger.send(Method::GET, &url, None).await.code(), "SubscriptionNotFound");
}
