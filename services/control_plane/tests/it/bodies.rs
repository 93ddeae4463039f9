//! Bodies that must not get in, and what each hears.

use expect_test::{Expect, expect};
use reqwest::Method;
use serde_json::{Value, json};

use crate::installation::{
    Arm, Installation, OTHER_SUBSCRIPTION, OTHER_TENANT, STRANGER, VERSION, group, vm_body, vm_path,
};

async fn refused(arm: &Arm, pointer: &str, value: Value, expected: Expect) {
    let mut body = vm_body();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
    expected.assert_eq(&arm.put(&vm_path("vm1"), &body).await.error());
}

#[tokio::test]
async fn wrong_references_and_values_are_named() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let os_disk = "/properties/storageProfile/osDisk";
    let image = "/properties/storageProfile/imageReference";
    refused(
        &arm,
        image,
        json!({"publisher": "casemate", "offer": "debian-13", "sku": "default", "version": "9.9.9"}),
        expect![[r#"404 ImageNotFound: The platform image 'casemate:debian-13:default:9.9.9' is not available. Verify that all fields in the storage profile are correct."#]],
    )
    .await;
    refused(
        &arm,
        image,
        json!({"publisher": "casemate", "offer": "plain", "sku": "default", "version": "latest"}),
        expect![[r#"400 InvalidParameter: SecurityType 'ConfidentialVM_DiskEncryptedWithPlatformKey' is not supported by given image."#]],
    )
    .await;
    refused(
        &arm,
        image,
        json!({"publisher": "casemate"}),
        expect![[r#"400 InvalidParameter: An image reference needs either 'id', or 'publisher', 'offer', 'sku' and 'version'."#]],
    )
    .await;
    refused(
        &arm,
        &format!("{os_disk}/diskSizeGB"),
        json!(1),
        expect![[r#"400 InvalidParameter: The specified disk size 1 GB is not between the size of the corresponding disk in the VM image (2 GB) and 4095 GB."#]],
    )
    .await;
    refused(
        &arm,
        &format!("{os_disk}/deleteOption"),
        json!("Detach"),
        expect![[r#"400 InvalidParameter: The value 'Detach' is not offered for osDisk.deleteOption: an OS disk is encrypted for its VM and goes with it. Leave it out or use 'Delete'."#]],
    )
    .await;
    refused(
        &arm,
        "/location",
        json!("mars"),
        expect![[r#"400 LocationNotAvailableForResourceType: The provided location 'mars' is not available for resource type 'Microsoft.Compute/virtualMachines'. List of available regions for the resource type is 'local'."#]],
    )
    .await;
    refused(
        &arm,
        "/properties/networkProfile",
        json!({"networkInterfaces": [{"id": format!("{}/providers/Microsoft.Network/networkInterfaces/nic1", group())}]}),
        expect![[r#"400 InvalidResourceReference: Resource /subscriptions/aaaaaaaa-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.Network/networkInterfaces/nic1 referenced by the virtual machine was not found. Please make sure that the referenced resource exists, and that both resources are in the same region."#]],
    )
    .await;
    refused(
        &arm,
        "/properties/casemate",
        json!({"recoveryKey": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}),
        expect![[r#"400 InvalidParameter: The recovery key must be an RSA public key (SubjectPublicKeyInfo) in PEM."#]],
    )
    .await;
    assert_eq!(arm.get(&vm_path("vm1")).await.status, 404, "nothing was left behind");
    let disks = arm.get(&format!("{}/providers/Microsoft.Compute/disks", group())).await;
    assert_eq!(disks.body["value"], json!([]));
}

#[tokio::test]
async fn another_tenants_resources_do_not_exist_for_a_reference() {
    let installation = Installation::new().await;
    let stranger = installation.arm_as(OTHER_TENANT, STRANGER).await;
    let theirs = format!("/subscriptions/{OTHER_SUBSCRIPTION}/resourceGroups/theirs");
    assert_eq!(stranger.put(&theirs, &json!({"location": "local"})).await.status, 201);
    let set = format!("{theirs}/providers/Microsoft.Compute/diskEncryptionSets/des");
    let body = json!({"location": "local", "properties": {"encryptionType": "ConfidentialVmEncryptedWithCustomerKey",
        "activeKey": {"keyUrl": "https://localhost:9/keys/k/1"}}});
    assert_eq!(stranger.put(&set, &body).await.status, 200);
    let arm = installation.arm().await;
    arm.make_group().await;
    let mut body = vm_body();
    body["properties"]["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"]["diskEncryptionSet"] =
        json!({"id": set});
    let answer = arm.put(&vm_path("vm1"), &body).await;
    assert_eq!((answer.status, answer.code()), (400, "InvalidResourceReference"));
}

#[tokio::test]
async fn broken_and_oversized_bodies_are_refused_before_they_are_read_further() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let url = format!("{}?api-version={VERSION}", vm_path("vm1"));
    for text in ["", "{", "[]", "null", "{\"location\": \"local\",}", "\u{0}", "{\"a\":1}}"] {
        let answer = arm.send(Method::PUT, &url, Some(text.as_bytes().to_vec())).await;
        assert_eq!((answer.status, answer.code()), (400, "InvalidRequestContent"), "{text:?}");
    }
    let deep = format!("{}{}", "{\"a\":".repeat(500), "1");
    assert_eq!(arm.send(Method::PUT, &url, Some(deep.into_bytes())).await.code(), "InvalidRequestContent");
    let huge = vec![b' '; (1 << 20) + 1];
    let answer = arm.send(Method::PUT, &url, Some(huge)).await;
    assert_eq!((answer.status, answer.code()), (413, "RequestContentTooLarge"));
    assert!(answer.text.contains("1048576"), "{}", answer.text);
    let fits = vec![b' '; 1 << 20];
    assert_eq!(arm.send(Method::PUT, &url, Some(fits)).await.status, 400);
}

#[tokio::test]
async fn an_unknown_member_and_a_wrong_word_are_named_with_their_place() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let url = format!("{}?api-version={VERSION}", vm_path("vm1"));
    let text = b"{\n  \"location\": \"local\",\n  \"properties\": {\n    \"hardwareProfil\": {}\n  }\n}";
    let answer = arm.send(Method::PUT, &url, Some(text.to_vec())).await;
    assert_eq!(
        answer.error(),
        "400 BadRequest: Could not find member 'hardwareProfil' on object of type 'VirtualMachineProperties'. \
         Path 'properties.hardwareProfil', line 4, position 20."
    );
    assert_eq!(answer.body["error"]["target"], "properties.hardwareProfil");
}

#[tokio::test]
async fn names_that_would_be_paths_are_refused() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    for name in ["a b", ".hidden", "..", "-x", "a%3Bb", &"a".repeat(65)] {
        let answer = arm.put(&vm_path(name), &vm_body()).await;
        assert!(matches!(answer.status, 400 | 404), "{name}: {}", answer.text);
    }
    let answer = arm.put(&vm_path("a%2F..%2Fb"), &vm_body()).await;
    assert_eq!(answer.code(), "InvalidResourceType");
}

#[tokio::test]
async fn a_version_is_needed_and_must_not_be_too_old() {
    let installation = Installation::new().await;
    let arm = installation.arm().await;
    arm.make_group().await;
    let path = vm_path("vm1");
    assert_eq!(arm.send(Method::GET, &path, None).await.code(), "MissingApiVersionParameter");
    let old = arm.send(Method::GET, &format!("{path}?api-version=2015-06-15"), None).await;
    assert_eq!((old.status, old.code()), (400, "NoRegisteredProviderFound"));
    for version in ["2021-07-01", "2022-11-01", "2026-04-01", "2027-01-01-preview"] {
        let answer = arm.send(Method::GET, &format!("{path}?API-VERSION={version}"), None).await;
        assert_eq!(answer.code(), "ResourceNotFound", "{version}");
    }
}
