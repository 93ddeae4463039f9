//! The rules that a confidential VM's body must keep, with Azure's own codes and texts where they are publicly known.
//!
//! Pure: a body in, its security settings or the first broken rule out. Order matters: it is the order in which a person
//! can understand the answers.

use internal_api::launch::SecurityEncryption;

use super::refusal::{Kind, Refusal};
use super::sizes::{self, Size};
use super::vm_body::{DiskSecurityProfile, EncryptionType, SubResource, VmProperties};

/// The path of the disk's security profile, as Azure's texts have it.
const DISK_PROFILE: &str = "properties.storageProfile.osDisk.managedDisk.securityProfile";

/// What a valid body says about security.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// Size.
    pub size: &'static Size,
    /// What is encrypted.
    pub encryption: SecurityEncryption,
    /// Secure Boot.
    pub secure_boot: bool,
    /// Disk encryption set that names the tenant's key.
    pub disk_encryption_set: Option<String>,
}

/// Checks size and security settings.
pub fn security(properties: &VmProperties) -> Result<Security, Refusal> {
    let vm_size = properties.hardware_profile.vm_size.as_deref().filter(|name| !name.is_empty());
    let vm_size = vm_size.ok_or_else(|| missing("properties.hardwareProfile.vmSize", "vmSize"))?;
    let disk = &properties.storage_profile.os_disk.managed_disk;
    if properties.security_profile.security_type.as_deref() != Some("ConfidentialVM") {
        return Err(not_confidential(vm_size, disk.security_profile.as_ref()));
    }
    let profile = disk.security_profile.clone().unwrap_or_default();
    let Some(encryption) = profile.security_encryption_type else {
        let message = "Required parameter for Confidential VMs \
            'managedDisk.securityProfile.securityEncryptionType' is missing (null).";
        return Err(Refusal::bad(message).at(&format!("{DISK_PROFILE}.securityEncryptionType")));
    };
    let size = sizes::by_name(vm_size).ok_or_else(|| size_cannot(vm_size, encryption))?;
    let offered = encryption.offered().ok_or_else(|| size_cannot(vm_size, encryption))?;
    let secure_boot = firmware(properties, encryption)?;
    host_encryption(properties, encryption)?;
    if disk.disk_encryption_set.is_some() {
        let message = "Server-side encryption with customer-managed keys is not offered by this installation. For a \
            tenant's own key use 'managedDisk.securityProfile.diskEncryptionSet' with 'DiskWithVMGuestState'.";
        let target = "properties.storageProfile.osDisk.managedDisk.diskEncryptionSet";
        return Err(Refusal::bad(message).at(target));
    }
    let disk_encryption_set = customer_key(&profile, encryption)?;
    Ok(Security { size, encryption: offered, secure_boot, disk_encryption_set })
}

fn not_confidential(vm_size: &str, profile: Option<&DiskSecurityProfile>) -> Refusal {
    if profile.is_some() {
        let message = "The parameter 'managedDisk.securityProfile' can only be set for Confidential VMs.";
        return Refusal::bad(message).at(DISK_PROFILE);
    }
    match sizes::by_name(vm_size) {
        Some(size) => Refusal::bad(format!(
            "The VM size '{}' is only for Confidential VMs. Set 'securityProfile.securityType' to 'ConfidentialVM'.",
            size.name
        ))
        .at("properties.securityProfile.securityType"),
        None => Refusal::parameter(
            "properties.hardwareProfile.vmSize",
            format!("The value {vm_size} provided for the VM size is not valid. The valid sizes in the current region are: {}.", size_names()),
        ),
    }
}

fn size_names() -> String {
    sizes::all().iter().map(|size| size.name.as_str()).collect::<Vec<_>>().join(",")
}

fn size_cannot(vm_size: &str, encryption: EncryptionType) -> Refusal {
    Refusal::bad(format!(
        "The VM size '{vm_size}' is not supported for creation of VMs and Virtual Machine Scale Set with \
         'ConfidentialVM' security type and managedDisk.securityProfile.securityEncryptionType set as '{}'",
        encryption.text()
    ))
    .at("properties.hardwareProfile.vmSize")
}

/// Checks vTPM and Secure Boot; answers whether Secure Boot is on.
fn firmware(properties: &VmProperties, encryption: EncryptionType) -> Result<bool, Refusal> {
    let uefi = &properties.security_profile.uefi_settings;
    if uefi.v_tpm_enabled != Some(true) {
        let message = format!(
            "'securityProfile.uefiSettings.vTpmEnabled' must be true for Confidential VMs with \
             securityEncryptionType '{}'.",
            encryption.text()
        );
        return Err(Refusal::bad(message).at("properties.securityProfile.uefiSettings.vTpmEnabled"));
    }
    let secure_boot = uefi.secure_boot_enabled == Some(true);
    if !secure_boot && encryption == EncryptionType::DiskWithVMGuestState {
        let message = "'securityProfile.uefiSettings.secureBootEnabled' must be true for Confidential VMs with \
            securityEncryptionType 'DiskWithVMGuestState'.";
        return Err(Refusal::bad(message).at("properties.securityProfile.uefiSettings.secureBootEnabled"));
    }
    Ok(secure_boot)
}

fn host_encryption(properties: &VmProperties, encryption: EncryptionType) -> Result<(), Refusal> {
    let target = "properties.securityProfile.encryptionAtHost";
    match (properties.security_profile.encryption_at_host, encryption) {
        (Some(true), EncryptionType::DiskWithVMGuestState) => {
            let message = "'securityProfile.encryptionAtHost' cannot be true for Confidential VMs with \
                securityEncryptionType 'DiskWithVMGuestState'.";
            Err(Refusal::bad(message).at(target))
        }
        (Some(true), _) => {
            let message = "The property 'securityProfile.encryptionAtHost' is not valid because the \
                'Microsoft.Compute/EncryptionAtHost' feature is not enabled for this subscription.";
            Err(Refusal::parameter(target, message))
        }
        (Some(false) | None, _) => Ok(()),
    }
}

fn customer_key(
    profile: &DiskSecurityProfile,
    encryption: EncryptionType,
) -> Result<Option<String>, Refusal> {
    let target = &format!("{DISK_PROFILE}.diskEncryptionSet");
    match (&profile.disk_encryption_set, encryption) {
        (None, _) => Ok(None),
        (Some(SubResource { id: Some(id) }), EncryptionType::DiskWithVMGuestState) => Ok(Some(id.clone())),
        (Some(SubResource { id: None }), _) => Err(missing(&format!("{target}.id"), "diskEncryptionSet.id")),
        (Some(_), _) => {
            let message = format!(
                "'managedDisk.securityProfile.diskEncryptionSet' can only be set with securityEncryptionType \
                 'DiskWithVMGuestState', not with '{}'.",
                encryption.text()
            );
            Err(Refusal::bad(message).at(target))
        }
    }
}

/// 400 for a parameter that must be there.
pub fn missing(target: &str, name: &str) -> Refusal {
    Refusal::parameter(target, format!("Required parameter '{name}' is missing (null)."))
}

/// 409 for a property that is fixed once the VM exists.
pub fn unchangeable(property: &str) -> Refusal {
    let message = format!("Changing property '{property}' is not allowed.");
    Refusal::new(Kind::Conflict, "PropertyChangeNotAllowed", message).at(property)
}

#[cfg(test)]
#[path = "validation_tests.rs"]
mod tests;
