//! What a VM's body refers to: image, interfaces, disk encryption set; and the checks of the OS disk's remaining words.

use internal_api::launch::SecurityEncryption;
use serde_json::json;

use super::images::Image;
use super::names::{DES, NIC};
use super::refusal::{Kind, Refusal};
use super::validation::{self, Security};
use super::vm::disk_security_type;
use super::vm_body::{ImageReference, SubResource, VmProperties};
use super::{ControlPlane, image_resources};
use crate::store::Tx;

/// Checks what is said about the OS disk beyond its encryption.
pub fn check_os_disk(properties: &VmProperties) -> Result<(), Refusal> {
    let disk = &properties.storage_profile.os_disk;
    let path = |name: &str| format!("properties.storageProfile.osDisk.{name}");
    match disk.create_option.as_deref() {
        Some("FromImage") => {}
        None => return Err(validation::missing(&path("createOption"), "osDisk.createOption")),
        Some(other) => {
            let message =
                format!("The value '{other}' is not offered for osDisk.createOption; use 'FromImage'.");
            return Err(Refusal::parameter(&path("createOption"), message));
        }
    }
    if disk.os_type.as_deref() == Some("Windows") {
        return Err(Refusal::parameter(
            &path("osType"),
            "Windows images are not offered by this installation.",
        ));
    }
    if disk.delete_option.as_deref() == Some("Detach") {
        let message = "The value 'Detach' is not offered for osDisk.deleteOption: an OS disk is encrypted for its VM \
            and goes with it. Leave it out or use 'Delete'.";
        return Err(Refusal::parameter(&path("deleteOption"), message));
    }
    Ok(())
}

/// The image that a body refers to.
pub async fn find_image(
    app: &ControlPlane,
    tx: &mut Tx,
    subscription: &str,
    properties: &VmProperties,
) -> Result<Image, Refusal> {
    let target = "properties.storageProfile.imageReference";
    let reference = properties.storage_profile.image_reference.as_ref();
    let reference = reference.ok_or_else(|| validation::missing(target, "imageReference"))?;
    let found = match reference {
        ImageReference { id: Some(id), .. } => image_resources::resolve(app, tx, subscription, id).await?,
        ImageReference {
            publisher: Some(publisher),
            offer: Some(offer),
            sku: Some(sku),
            version: Some(version),
            ..
        } => app.catalogue.by_urn(publisher, offer, sku, version)?,
        _ => {
            let message =
                "An image reference needs either 'id', or 'publisher', 'offer', 'sku' and 'version'.";
            return Err(Refusal::parameter(target, message));
        }
    };
    found.ok_or_else(|| no_image(reference).at(target))
}

fn no_image(reference: &ImageReference) -> Refusal {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let message = match &reference.id {
        Some(id) => format!("The image '{id}' was not found."),
        None => format!(
            "The platform image '{}:{}:{}:{}' is not available. Verify that all fields in the storage profile are correct.",
            text(&reference.publisher),
            text(&reference.offer),
            text(&reference.sku),
            text(&reference.version)
        ),
    };
    Refusal::new(Kind::NotFound, "ImageNotFound", message)
}

/// An image is made for one way of encryption: its initramfs unlocks the root by TPM, or it does not.
pub fn check_image(image: &Image, security: &Security) -> Result<(), Refusal> {
    let encrypted = security.encryption == SecurityEncryption::DiskWithVMGuestState;
    if encrypted == image.disk_encrypted {
        return Ok(());
    }
    let security_type = disk_security_type(security.encryption, security.disk_encryption_set.is_some());
    let message = format!("SecurityType '{security_type}' is not supported by given image.");
    Err(Refusal::parameter("securityProfile.securityType", message))
}

/// Checks that the interfaces are there.
pub async fn check_interfaces(
    tx: &mut Tx,
    subscription: &str,
    interfaces: &[SubResource],
) -> Result<(), Refusal> {
    let target = "properties.networkProfile.networkInterfaces";
    if interfaces.len() > 1 {
        let message = "The number of network interfaces exceeds the maximum allowed for the VM size (1).";
        return Err(Refusal::parameter(target, message));
    }
    for interface in interfaces {
        let id =
            interface.id.as_deref().ok_or_else(|| validation::missing(target, "networkInterfaces.id"))?;
        if tx.referenced(NIC, subscription, id).await?.is_none() {
            let message = format!(
                "Resource {id} referenced by the virtual machine was not found. Please make sure that the referenced resource exists, and that both resources are in the same region."
            );
            return Err(Refusal::new(Kind::BadRequest, "InvalidResourceReference", message).at(target));
        }
    }
    Ok(())
}

/// The tenant's key, from the disk encryption set.
pub async fn tenant_key(
    tx: &mut Tx,
    subscription: &str,
    set: Option<&str>,
) -> Result<Option<String>, Refusal> {
    let Some(id) = set else { return Ok(None) };
    let target = "properties.storageProfile.osDisk.managedDisk.securityProfile.diskEncryptionSet.id";
    let Some(found) = tx.referenced(DES, subscription, id).await? else {
        let message = format!("The disk encryption set '{id}' was not found.");
        return Err(Refusal::new(Kind::BadRequest, "InvalidResourceReference", message).at(target));
    };
    let properties = &found.desired["properties"];
    if properties["encryptionType"] != json!("ConfidentialVmEncryptedWithCustomerKey") {
        let message = format!(
            "The disk encryption set '{id}' must have the encryption type 'ConfidentialVmEncryptedWithCustomerKey' to be used in a disk's security profile."
        );
        return Err(Refusal::parameter(target, message));
    }
    Ok(properties["activeKey"]["keyUrl"].as_str().map(str::to_owned))
}

/// Checks a recovery key.
pub fn recovery_key(pem: String) -> Result<String, Refusal> {
    let text = pem.trim();
    let inner = text
        .strip_prefix("-----BEGIN PUBLIC KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
        .map(|inner| inner.split_whitespace().collect::<String>());
    let der = inner.and_then(|inner| public_api::encoding::from_base64_any(&inner).ok());
    match der.filter(|der| aws_lc_rs::rsa::PublicEncryptingKey::from_der(der).is_ok()) {
        Some(_) => Ok(pem),
        None => {
            let message = "The recovery key must be an RSA public key (SubjectPublicKeyInfo) in PEM.";
            Err(Refusal::parameter("properties.casemate.recoveryKey", message))
        }
    }
}
