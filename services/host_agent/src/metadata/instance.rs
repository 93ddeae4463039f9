//! The document of `/metadata/instance`: what the assignment says about the VM, in Azure's shape. Every value is text,
//! and what is unknown is the empty text.

use internal_api::host::VmSpec;
use internal_api::launch::{LaunchDocument, ProvisioningData};
use serde_json::{Value, json};

/// The document of the VM that `spec` describes, in `region`.
pub fn document(spec: &VmSpec, region: &str) -> Value {
    let launch: Option<LaunchDocument> = serde_json::from_str(&spec.launch_document).ok();
    let data: Option<ProvisioningData> = serde_json::from_str(&spec.provisioning_data).ok();
    let resource_id = launch.as_ref().map(|launch| launch.resource_id.as_str()).unwrap_or_default();
    let secure_boot = launch.as_ref().is_some_and(|launch| launch.secure_boot);
    let user = data.as_ref().map(|data| data.admin_username.as_str()).unwrap_or_default();
    let gib = spec.disk_bytes.div_ceil(1 << 30).to_string();
    json!({
        "compute": {
            "additionalCapabilities": { "hibernationEnabled": "false" },
            "azEnvironment": "Casemate",
            "customData": "",
            "evictionPolicy": "",
            "isHostCompatibilityLayerVm": "false",
            "licenseType": "",
            "location": region,
            "name": spec.name,
            "offer": "",
            "osProfile": {
                "adminUsername": user,
                "computerName": data.as_ref().map(|data| data.computer_name.as_str()).unwrap_or_default(),
                "disablePasswordAuthentication": "true",
            },
            "osType": "Linux",
            "placementGroupId": "",
            "plan": { "name": "", "product": "", "publisher": "" },
            "platformFaultDomain": "0",
            "platformUpdateDomain": "0",
            "priority": "",
            "provider": "Microsoft.Compute",
            "publicKeys": public_keys(data.as_ref(), user),
            "publisher": "",
            "resourceGroupName": segment(resource_id, "resourceGroups"),
            "resourceId": resource_id,
            "securityProfile": {
                "encryptionAtHost": "false",
                "secureBootEnabled": secure_boot.to_string(),
                "securityType": "ConfidentialVM",
                "virtualTpmEnabled": "true",
            },
            "sku": "",
            "storageProfile": {
                "dataDisks": [],
                "imageReference": { "id": "", "offer": "", "publisher": "", "sku": "", "version": "" },
                "osDisk": { "createOption": "FromImage", "diskSizeGB": gib, "osType": "Linux" },
                "resourceDisk": { "size": "0" },
            },
            "subscriptionId": segment(resource_id, "subscriptions"),
            "tags": "",
            "tagsList": [],
            "userData": "",
            "version": "",
            "vmId": spec.vm_id.to_lowercase(),
            "vmScaleSetName": "",
            "vmSize": "",
            "zone": "",
        },
        "network": {
            "interface": [{
                "ipv4": {
                    "ipAddress": [{ "privateIpAddress": "10.0.2.15", "publicIpAddress": "" }],
                    "subnet": [{ "address": "10.0.2.0", "prefix": "24" }],
                },
                "ipv6": { "ipAddress": [] },
                "macAddress": mac_address(&spec.vm_id),
            }],
        },
    })
}

fn public_keys(data: Option<&ProvisioningData>, user: &str) -> Vec<Value> {
    let keys = data.map(|data| data.ssh_public_keys.as_slice()).unwrap_or_default();
    let path = format!("/home/{user}/.ssh/authorized_keys");
    keys.iter().map(|key| json!({ "keyData": key, "path": path })).collect()
}

/// The segment behind `name` in a resource id; names are compared without case.
fn segment<'a>(id: &'a str, name: &str) -> &'a str {
    let mut segments = id.split('/');
    segments
        .find(|segment| segment.eq_ignore_ascii_case(name))
        .and_then(|_| segments.next())
        .unwrap_or_default()
}

fn mac_address(vm_id: &str) -> String {
    crate::qemu::mac(vm_id, 0).replace(':', "").to_uppercase()
}
