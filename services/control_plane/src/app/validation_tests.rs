//! The validation matrix, rule by rule, with the texts that callers see.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::app::body::{self, compute::VIRTUAL_MACHINE};
use crate::app::vm_body::VmBody;

fn body() -> Value {
    json!({
        "location": "local",
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_DC2as_v5"},
            "storageProfile": {"osDisk": {"createOption": "fromImage", "managedDisk": {
                "securityProfile": {"securityEncryptionType": "DiskWithVMGuestState"}}}},
            "securityProfile": {"securityType": "ConfidentialVM",
                "uefiSettings": {"secureBootEnabled": true, "vTpmEnabled": true}},
        }
    })
}

fn judge(body: &Value) -> Result<Security, Refusal> {
    let text = serde_json::to_vec(body).unwrap();
    let shaped = body::parse(&text, &VIRTUAL_MACHINE)?;
    let typed: VmBody = body::typed(&shaped)?;
    security(&typed.properties)
}

/// The answer to the good body with one value replaced.
fn with(pointer: &str, value: Value) -> Result<Security, Refusal> {
    let mut body = body();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.insert(name.to_owned(), value);
    judge(&body)
}

fn refused(pointer: &str, value: Value, expected: Expect) {
    let refusal = with(pointer, value).unwrap_err();
    assert_eq!(refusal.kind, Kind::BadRequest);
    expected.assert_eq(&refusal.to_string());
}

const DISK: &str = "/properties/storageProfile/osDisk/managedDisk";
const DISK_PROFILE_POINTER: &str = "/properties/storageProfile/osDisk/managedDisk/securityProfile";

#[test]
fn the_good_body_is_good() {
    let security = judge(&body()).unwrap();
    assert_eq!(security.encryption, SecurityEncryption::DiskWithVMGuestState);
    assert_eq!((security.size.vcpus, security.secure_boot), (2, true));
}

#[test]
fn booleans_as_text_and_other_spellings_pass() {
    let mut body = body();
    body["properties"]["securityProfile"]["uefiSettings"] =
        json!({"SecureBootEnabled": "true", "vtpmenabled": "True"});
    body["properties"]["securityProfile"]["securityType"] = json!("confidentialvm");
    body["properties"]["hardwareProfile"] = json!({"VmSize": "standard_dc2AS_v5"});
    assert!(judge(&body).unwrap().secure_boot);
}

#[test]
fn a_confidential_vm_needs_an_encryption_type() {
    for disk in [json!({}), json!({"securityProfile": {"securityEncryptionType": null}})] {
        let text = expect![[
            r"BadRequest: Required parameter for Confidential VMs 'managedDisk.securityProfile.securityEncryptionType' is missing (null)."
        ]];
        let refusal = with(DISK, disk).unwrap_err();
        text.assert_eq(&refusal.to_string());
    }
}

#[test]
fn other_vms_must_not_have_a_disk_security_profile() {
    for security_type in [json!("TrustedLaunch"), json!("Standard"), json!(null)] {
        refused(
            "/properties/securityProfile/securityType",
            security_type,
            expect![[
                r"BadRequest: The parameter 'managedDisk.securityProfile' can only be set for Confidential VMs."
            ]],
        );
    }
}

#[test]
fn the_size_must_be_confidential() {
    let text = expect![[
        r"BadRequest: The VM size 'Standard_D2as_v5' is not supported for creation of VMs and Virtual Machine Scale Set with 'ConfidentialVM' security type and managedDisk.securityProfile.securityEncryptionType set as 'DiskWithVMGuestState'"
    ]];
    refused("/properties/hardwareProfile/vmSize", json!("Standard_D2as_v5"), text);
    let mut body = body();
    body["properties"]["securityProfile"] = json!({});
    body["properties"]["storageProfile"]["osDisk"]["managedDisk"] = json!({});
    let refusal = judge(&body).unwrap_err();
    expect![[r"BadRequest: The VM size 'Standard_DC2as_v5' is only for Confidential VMs. Set 'securityProfile.securityType' to 'ConfidentialVM'."]]
        .assert_eq(&refusal.to_string());
    body["properties"]["hardwareProfile"]["vmSize"] = json!("Standard_D2as_v5");
    assert_eq!(judge(&body).unwrap_err().code, "InvalidParameter");
    body["properties"]["hardwareProfile"] = json!({});
    assert_eq!(judge(&body).unwrap_err().target.unwrap(), "properties.hardwareProfile.vmSize");
}

#[test]
fn non_persisted_tpm_is_not_for_snp_sizes() {
    let text = expect![[
        r"BadRequest: The VM size 'Standard_DC2as_v5' is not supported for creation of VMs and Virtual Machine Scale Set with 'ConfidentialVM' security type and managedDisk.securityProfile.securityEncryptionType set as 'NonPersistedTPM'"
    ]];
    refused(DISK_PROFILE_POINTER, json!({"securityEncryptionType": "NonPersistedTPM"}), text);
}

#[test]
fn the_vtpm_must_be_on_and_secure_boot_too_when_the_disk_is_encrypted() {
    for off in [json!(false), json!("false"), json!(null)] {
        refused(
            "/properties/securityProfile/uefiSettings/vTpmEnabled",
            off.clone(),
            expect![[
                r"BadRequest: 'securityProfile.uefiSettings.vTpmEnabled' must be true for Confidential VMs with securityEncryptionType 'DiskWithVMGuestState'."
            ]],
        );
        refused(
            "/properties/securityProfile/uefiSettings/secureBootEnabled",
            off,
            expect![[
                r"BadRequest: 'securityProfile.uefiSettings.secureBootEnabled' must be true for Confidential VMs with securityEncryptionType 'DiskWithVMGuestState'."
            ]],
        );
    }
}

#[test]
fn secure_boot_may_be_off_when_only_the_guest_state_is_encrypted() {
    let mut body = body();
    body["properties"]["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"] =
        json!({"securityEncryptionType": "VMGuestStateOnly"});
    body["properties"]["securityProfile"]["uefiSettings"]["secureBootEnabled"] = json!(false);
    let security = judge(&body).unwrap();
    assert_eq!((security.secure_boot, security.encryption), (false, SecurityEncryption::VMGuestStateOnly));
}

#[test]
fn encryption_at_host_is_refused_with_either_type() {
    refused(
        "/properties/securityProfile/encryptionAtHost",
        json!(true),
        expect![[
            r"BadRequest: 'securityProfile.encryptionAtHost' cannot be true for Confidential VMs with securityEncryptionType 'DiskWithVMGuestState'."
        ]],
    );
    let mut body = body();
    body["properties"]["securityProfile"]["encryptionAtHost"] = json!(true);
    body["properties"]["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"] =
        json!({"securityEncryptionType": "VMGuestStateOnly"});
    expect![[r"InvalidParameter: The property 'securityProfile.encryptionAtHost' is not valid because the 'Microsoft.Compute/EncryptionAtHost' feature is not enabled for this subscription."]]
        .assert_eq(&judge(&body).unwrap_err().to_string());
}

#[test]
fn a_customer_key_needs_the_disk_to_be_encrypted() {
    refused(
        DISK_PROFILE_POINTER,
        json!({"securityEncryptionType": "VMGuestStateOnly", "diskEncryptionSet": {"id": "/x"}}),
        expect![[
            r"BadRequest: 'managedDisk.securityProfile.diskEncryptionSet' can only be set with securityEncryptionType 'DiskWithVMGuestState', not with 'VMGuestStateOnly'."
        ]],
    );
    let profile =
        json!({"securityEncryptionType": "DiskWithVMGuestState", "diskEncryptionSet": {"id": "/x"}});
    let security = with(DISK_PROFILE_POINTER, profile).unwrap();
    assert_eq!(security.disk_encryption_set.as_deref(), Some("/x"));
    let outer = json!({"diskEncryptionSet": {"id": "/x"},
        "securityProfile": {"securityEncryptionType": "DiskWithVMGuestState"}});
    assert!(with(DISK, outer).unwrap_err().message.contains("Server-side encryption"));
}

#[test]
fn a_wrong_word_is_named_with_its_place() {
    refused(
        DISK_PROFILE_POINTER,
        json!({"securityEncryptionType": "DISK_WITH_VM_GUEST_STATE"}),
        expect![[
            r#"BadRequest: Error converting value "DISK_WITH_VM_GUEST_STATE" to type 'System.Nullable`1[Microsoft.Azure.Management.Compute.SecurityEncryptionTypes]'. Path 'properties.storageProfile.osDisk.managedDisk.securityProfile.securityEncryptionType', line 1, position 336."#
        ]],
    );
}

#[test]
fn an_unknown_member_is_named_with_its_place() {
    refused(
        "/properties/securityProfile/encrypted",
        json!(true),
        expect![
            "BadRequest: Could not find member 'encrypted' on object of type 'SecurityProfile'. Path 'properties.securityProfile.encrypted', line 1, position 118."
        ],
    );
    refused(
        "/properties/availabilitySet",
        json!({"id": "/x"}),
        expect![
            "BadRequest: This property is valid but not offered by this installation; leave it out. Path 'properties.availabilitySet', line 1, position 51."
        ],
    );
    assert!(with("/properties/availabilitySet", json!({})).is_ok());
    assert!(with("/properties/provisioningState", json!("Succeeded")).is_ok());
    let twice = br#"{"location": "a", "Location": "b"}"#;
    assert!(body::parse(twice, &VIRTUAL_MACHINE).unwrap_err().message.contains("given twice"));
}
