//! The other resources: status codes and shapes that clients hold on to.

use internal_api::launch::sha256_hex;
use reqwest::Method;
use serde_json::{Value, json};

use crate::installation::{Arm, Installation, SUBSCRIPTION, group, vm_body, vm_path};

fn compute(tail: &str) -> String {
    format!("{}/providers/Microsoft.Compute/{tail}", group())
}

fn network(tail: &str) -> String {
    format!("{}/providers/Microsoft.Network/{tail}", group())
}

fn all(tail: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/{tail}")
}

async fn code(arm: &Arm, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
    let answer = arm.call(method, path, body.as_ref()).await;
    (answer.status, answer.code().to_owned())
}

#[tokio::test]
async fn resource_groups_have_the_status_codes_that_clients_want() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    assert_eq!(arm.call(Method::HEAD, &group(), None).await.status, 404);
    assert_eq!(code(&arm, Method::GET, &group(), None).await, (404, "ResourceGroupNotFound".into()));
    assert_eq!(code(&arm, Method::PUT, &group(), Some(json!({}))).await, (400, "LocationRequired".into()));
    let created = arm.put(&group(), &json!({"location": "Local", "tags": {"a": "b"}})).await;
    assert_eq!(
        (created.status, &created.body["properties"]["provisioningState"]),
        (201, &json!("Succeeded"))
    );
    assert_eq!(arm.put(&group().to_uppercase(), &json!({"location": "local"})).await.status, 200);
    assert_eq!(arm.call(Method::HEAD, &group(), None).await.status, 204);
    let list = arm.get(&format!("/subscriptions/{SUBSCRIPTION}/resourcegroups")).await;
    assert_eq!(list.body["value"][0]["id"], group());
    let gone = arm.delete(&group()).await;
    assert_eq!(gone.status, 202);
    arm.finish(&gone).await;
    assert_eq!(code(&arm, Method::DELETE, &group(), None).await, (404, "ResourceGroupNotFound".into()));
    let name = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/ends-with.");
    assert_eq!(
        code(&arm, Method::PUT, &name, Some(json!({"location": "local"}))).await.1,
        "InvalidResourceGroup"
    );
}

#[tokio::test]
async fn missing_things_are_404_and_missing_deletions_204() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    let no_group = arm.put(&vm_path("vm1"), &vm_body()).await;
    assert_eq!(no_group.error(), "404 ResourceGroupNotFound: Resource group 'rg' could not be found.");
    assert_eq!(arm.get(&compute("virtualMachines")).await.code(), "ResourceGroupNotFound");
    arm.make_group().await;
    let missing = arm.get(&vm_path("vm1")).await;
    assert_eq!(
        missing.error(),
        "404 ResourceNotFound: The Resource 'Microsoft.Compute/virtualMachines/vm1' under resource group 'rg' was not found."
    );
    for path in [
        vm_path("x"),
        compute("disks/x"),
        compute("diskEncryptionSets/x"),
        compute("images/x"),
        network("networkInterfaces/x"),
    ] {
        assert_eq!(code(&arm, Method::GET, &path, None).await, (404, "ResourceNotFound".into()), "{path}");
        assert_eq!(arm.delete(&path).await.status, 204, "{path}");
    }
    for action in ["start", "restart", "powerOff", "deallocate", "retrieveBootDiagnosticsData"] {
        assert_eq!(arm.post(&format!("{}/{action}", vm_path("x"))).await.status, 404, "{action}");
    }
    assert_eq!(arm.get(&all("locations/local/operations/x")).await.status, 404);
}

#[tokio::test]
async fn an_os_disk_is_a_resource_that_belongs_to_its_vm() {
    let installation = Installation::new().await;
    let _host = installation.host();
    let arm = installation.arm().await;
    let vm = arm.make_vm("vm1").await;
    let name = vm["properties"]["storageProfile"]["osDisk"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("vm1_OsDisk_1_"));
    let path = compute(&format!("disks/{name}"));
    let disk = arm.get(&path).await.body;
    assert_eq!(disk["id"], vm["properties"]["storageProfile"]["osDisk"]["managedDisk"]["id"]);
    assert_eq!(disk["managedBy"], vm["id"]);
    assert_eq!(disk["properties"]["diskState"], "Attached");
    assert_eq!(
        disk["properties"]["securityProfile"]["securityType"],
        "ConfidentialVM_DiskEncryptedWithPlatformKey"
    );
    assert_eq!(code(&arm, Method::DELETE, &path, None).await, (409, "OperationNotAllowed".into()));
    let tagged = arm.call(Method::PATCH, &path, Some(&json!({"tags": {"a": "b"}}))).await;
    assert_eq!((tagged.status, &tagged.body["tags"]), (200, &json!({"a": "b"})));
    let empty = json!({"location": "local", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 4}});
    assert_eq!(
        code(&arm, Method::PUT, &compute("disks/data"), Some(empty)).await,
        (400, "OperationNotAllowed".into())
    );
    assert_eq!(arm.get(&all("disks")).await.body["value"].as_array().unwrap().len(), 1);
    let inventory = arm.get(&format!("{}/resources", group())).await;
    let types: Vec<&str> =
        inventory.body["value"].as_array().unwrap().iter().filter_map(|one| one["type"].as_str()).collect();
    assert_eq!(types, ["Microsoft.Compute/disks", "Microsoft.Compute/virtualMachines"]);
    for (named, expected) in [(name.as_str(), 1), ("x", 0)] {
        let filter =
            format!("$filter=resourceType%20eq%20'microsoft.compute/DISKS'%20and%20name%20eq%20'{named}'");
        let filtered = arm.get(&format!("/subscriptions/{SUBSCRIPTION}/resources?{filter}")).await;
        assert_eq!(filtered.body["value"].as_array().unwrap().len(), expected, "{named}");
    }
    let mut twin = vm_body();
    twin["properties"]["storageProfile"]["osDisk"]["name"] = json!(name);
    let conflict = arm.put(&vm_path("vm2"), &twin).await;
    assert_eq!((conflict.status, conflict.code()), (409, "ConflictingUserInput"));
    arm.finish(&arm.post(&format!("{}/deallocate", vm_path("vm1"))).await).await;
    assert_eq!(arm.get(&path).await.body["properties"]["diskState"], "Reserved");
}

#[tokio::test]
async fn guest_state_only_needs_an_image_that_does_not_unlock() {
    let installation = Installation::new().await;
    let _host = installation.host();
    let arm = installation.arm().await;
    arm.make_group().await;
    let mut body = vm_body();
    body["properties"]["storageProfile"]["imageReference"] = json!({"id": compute("images/plain")});
    body["properties"]["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"] =
        json!({"securityEncryptionType": "vmgueststateonly"});
    let answer = arm.put(&vm_path("vm1"), &body).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded", "{}", answer.text);
    let disks = arm.get(&compute("disks")).await;
    assert_eq!(
        disks.body["value"][0]["properties"]["securityProfile"]["securityType"],
        "ConfidentialVM_VMGuestStateOnlyEncryptedWithPlatformKey"
    );
}

#[tokio::test]
async fn disk_encryption_sets_keep_their_rules() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let path = compute("diskEncryptionSets/des");
    let body = |kind: &str, url: &str| {
        json!({"location": "local", "identity": {"type": "SystemAssigned"},
            "properties": {"encryptionType": kind, "activeKey": {"keyUrl": url}}})
    };
    const KIND: &str = "ConfidentialVmEncryptedWithCustomerKey";
    const URL: &str = "https://localhost:9/keys/k/1";
    for (body, target) in [
        (body("EncryptionAtRestWithCustomerKey", URL), "properties.encryptionType"),
        (body(KIND, "https://localhost:9/keys/k"), "properties.activeKey.keyUrl"),
        (json!({"location": "local", "properties": {"encryptionType": KIND}}), "properties.activeKey.keyUrl"),
    ] {
        let answer = arm.put(&path, &body).await;
        assert_eq!((answer.status, &answer.body["error"]["target"]), (400, &json!(target)));
    }
    let made = arm.put(&path, &body(KIND, URL)).await;
    assert_eq!(made.status, 200, "never 201");
    assert!(made.body["identity"]["principalId"].is_string());
    let rotated =
        json!({"properties": {"activeKey": {"keyUrl": "https://localhost:9/keys/k/2"}}, "tags": {"a": "b"}});
    let patched = arm.call(Method::PATCH, &path, Some(&rotated)).await;
    assert_eq!(patched.body["properties"]["activeKey"]["keyUrl"], "https://localhost:9/keys/k/2");
    let again = arm.put(&path, &arm.get(&path).await.body).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.body["identity"], made.body["identity"]);
    for list in [compute("diskEncryptionSets"), all("diskEncryptionSets")] {
        assert_eq!(arm.get(&list).await.body["value"][0]["name"], "des");
    }
    assert_eq!(arm.get(&format!("{path}/associatedResources")).await.body["value"], json!([]));
    assert_eq!(arm.delete(&path).await.status, 200);
}

#[tokio::test]
async fn an_image_can_get_a_name_of_its_own() {
    let installation = Installation::new().await;
    let _host = installation.host();
    let arm = installation.arm().await;
    arm.make_group().await;
    let path = compute("images/mine");
    let body = |uri: String| {
        let disk = json!({"osType": "Linux", "osState": "Generalized", "blobUri": uri});
        json!({"location": "local", "properties": {"storageProfile": {"osDisk": disk}}})
    };
    let unknown = arm.put(&path, &body(format!("sha256:{}", sha256_hex(b"unknown")))).await;
    assert_eq!((unknown.status, unknown.code()), (400, "InvalidParameter"));
    let uri = format!("sha256:{}", sha256_hex(b"debian-13"));
    assert_eq!(arm.put(&path, &body(uri.clone())).await.status, 201);
    assert_eq!(arm.put(&path, &body(uri)).await.status, 200);
    let other = arm.put(&path, &body(format!("sha256:{}", sha256_hex(b"plain")))).await;
    assert_eq!(other.code(), "PropertyChangeNotAllowed");
    let list = arm.get(&compute("images")).await;
    let names: Vec<&str> =
        list.body["value"].as_array().unwrap().iter().filter_map(|image| image["name"].as_str()).collect();
    assert_eq!(names, ["mine", "debian-13", "plain"]);
    let mut vm = vm_body();
    vm["properties"]["storageProfile"]["imageReference"] = json!({"id": path});
    let answer = arm.put(&vm_path("vm1"), &vm).await;
    assert_eq!(arm.finish(&answer).await["status"], "Succeeded", "{}", answer.text);
    assert_eq!(arm.delete(&path).await.status, 200);
    assert_eq!(arm.delete(&path).await.status, 204);
}

#[tokio::test]
async fn the_catalogue_answers_to_publishers_and_versions_in_bare_arrays() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    let base = all("locations/local/publishers");
    assert_eq!(arm.get(&base).await.body[0]["name"], "casemate");
    let offers = format!("{base}/casemate/artifacttypes/vmimage/offers");
    assert_eq!(arm.get(&offers).await.body.as_array().unwrap().len(), 2);
    let skus = format!("{offers}/debian-13/skus");
    assert_eq!(arm.get(&skus).await.body[0]["name"], "default");
    let versions = format!("{skus}/default/versions");
    let newest = arm.get(&format!("{versions}?$expand=properties&$orderby=name%20desc&$top=1")).await;
    assert_eq!(newest.body[0]["name"], "1.0.0");
    let one = arm.get(&format!("{versions}/1.0.0")).await;
    assert_eq!(one.body["properties"]["osDiskImage"]["operatingSystem"], "Linux");
    assert_eq!(arm.get(&format!("{versions}/2.0.0")).await.status, 404);
}

#[tokio::test]
async fn sizes_say_that_they_are_confidential() {
    let installation = Installation::new().await;
    let _host = installation.host();
    let arm = installation.arm().await;
    arm.make_vm("vm1").await;
    let skus = arm.get(&format!("{}?$filter=location%20eq%20'local'", all("skus"))).await;
    let rows = skus.body["value"].as_array().unwrap();
    assert_eq!(rows.len(), 19);
    let confidential = |row: &&Value| {
        let list = row["capabilities"].as_array().unwrap();
        list.iter().any(|one| one["name"] == "ConfidentialComputingType" && one["value"] == "SNP")
    };
    assert!(rows.iter().all(|row| confidential(&row)));
    let elsewhere = arm.get(&format!("{}?$filter=location%20eq%20'mars'", all("skus"))).await;
    assert_eq!(elsewhere.body["value"], json!([]));
    let sizes = arm.get(&all("locations/local/vmSizes")).await;
    assert_eq!(sizes.body["value"][0]["name"], "Casemate_Dev1");
    let usages = arm.get(&all("locations/local/usages")).await;
    assert_eq!(
        (&usages.body["value"][0]["currentValue"], &usages.body["value"][0]["limit"]),
        (&json!(1), &json!(8))
    );
}

#[tokio::test]
async fn network_resources_are_kept_named_and_say_that_they_have_no_effect() {
    let installation = Installation::new().await;
    let _host = installation.host();
    let arm = installation.arm().await;
    arm.make_group().await;
    let vnet = json!({"location": "local", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
        "subnets": [{"name": "default", "properties": {"addressPrefix": "10.0.0.0/24"}}]}});
    let made = arm.put(&network("virtualNetworks/vnet1"), &vnet).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.body["properties"]["casemate"]["effective"], false);
    let subnet = arm.get(&network("virtualNetworks/vnet1/subnets/default")).await.body;
    assert_eq!(subnet["id"], network("virtualNetworks/vnet1/subnets/default"));
    let second = arm.put(&network("virtualNetworks/vnet1/subnets/second"), &json!({"properties": {}})).await;
    assert_eq!(second.status, 201);
    let bad = arm.put(&network("networkInterfaces/nic1"), &json!({"location": "local"})).await;
    assert_eq!((bad.status, &bad.body["error"]["target"]), (400, &json!("properties.ipConfigurations")));
    let nic = json!({"location": "local", "properties": {"ipConfigurations": [
        {"name": "ipconfig1", "properties": {"subnet": {"id": subnet["id"]}}}]}});
    let made = arm.put(&network("networkInterfaces/nic1"), &nic).await;
    assert_eq!((made.status, &made.body["properties"]["provisioningState"]), (201, &json!("Succeeded")));
    let mut vm = vm_body();
    let interface =
        json!({"id": made.body["id"], "properties": {"deleteOption": "delete", "primary": "true"}});
    vm["properties"]["networkProfile"] = json!({"networkInterfaces": [interface]});
    let answer = arm.put(&vm_path("vm1"), &vm).await;
    arm.finish(&answer).await;
    assert_eq!(
        code(&arm, Method::DELETE, &network("networkInterfaces/nic1"), None).await,
        (409, "NicInUse".into())
    );
    arm.finish(&arm.delete(&vm_path("vm1")).await).await;
    assert_eq!(arm.get(&network("networkInterfaces/nic1")).await.status, 404, "its deleteOption says so");
    for kind in ["publicIPAddresses", "networkSecurityGroups"] {
        let path = network(&format!("{kind}/one"));
        assert_eq!(arm.put(&path, &json!({"location": "local"})).await.status, 201);
        let list =
            arm.get(&format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Network/{kind}")).await;
        assert_eq!(list.body["value"][0]["name"], "one");
        assert_eq!(arm.delete(&path).await.status, 200);
    }
    assert_eq!(arm.get(&network("loadBalancers/x")).await.code(), "InvalidResourceType");
}

#[tokio::test]
async fn locations_and_subscriptions_are_listed() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    let list = arm.get("/subscriptions").await;
    assert_eq!(list.body["value"][0]["id"], format!("/subscriptions/{SUBSCRIPTION}"));
    assert_eq!(list.body["value"][0]["state"], "Enabled");
    let one = arm.get(&format!("/subscriptions/{SUBSCRIPTION}")).await;
    assert_eq!(one.body["subscriptionId"], SUBSCRIPTION);
    let locations = arm.get(&format!("/subscriptions/{SUBSCRIPTION}/locations")).await;
    assert_eq!(locations.body["value"][0]["name"], "local");
    for header in ["x-ms-request-id", "x-ms-correlation-request-id", "strict-transport-security"] {
        assert!(!locations.header(header).is_empty(), "{header}");
    }
    assert_eq!(
        (locations.header("cache-control"), locations.header("x-content-type-options")),
        ("no-cache", "nosniff")
    );
}
