//! Types, names and places of resources.

use super::refusal::{Kind, Refusal};
use crate::store::Resource;

/// Type of resource groups, in lower case as the store has it.
pub const GROUP: &str = "microsoft.resources/resourcegroups";
/// Type of virtual machines.
pub const VM: &str = "microsoft.compute/virtualmachines";
/// Type of disks.
pub const DISK: &str = "microsoft.compute/disks";
/// Type of disk encryption sets.
pub const DES: &str = "microsoft.compute/diskencryptionsets";
/// Type of images.
pub const IMAGE: &str = "microsoft.compute/images";
/// Type of attestation providers.
pub const ATTESTATION_PROVIDER: &str = "microsoft.attestation/attestationproviders";
/// Type of vaults.
pub const VAULT: &str = "microsoft.keyvault/vaults";
/// Type of managed HSMs.
pub const MANAGED_HSM: &str = "microsoft.keyvault/managedhsms";
/// Type of role assignments.
pub const ROLE_ASSIGNMENT: &str = "microsoft.authorization/roleassignments";
/// Types with something at another service that goes before their rows do.
pub const SERVED_ELSEWHERE: [&str; 3] = [ATTESTATION_PROVIDER, VAULT, MANAGED_HSM];
/// Type of network interfaces.
pub const NIC: &str = "microsoft.network/networkinterfaces";

/// A name in a resource group, as a request spells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Subscription GUID.
    pub subscription: String,
    /// Resource group.
    pub group: String,
    /// Name of the resource.
    pub name: String,
}

impl Place {
    /// Key of the resource group.
    pub fn group_key(&self) -> String {
        group_key(&self.subscription, &self.group)
    }

    /// Key of the resource of a type such as `Microsoft.Compute/disks`.
    pub fn key(&self, kind: &str) -> String {
        format!("{}/providers/{kind}/{}", self.group_key(), self.name).to_ascii_lowercase()
    }
}

/// Key of a resource group.
pub fn group_key(subscription: &str, group: &str) -> String {
    format!("/subscriptions/{subscription}/resourceGroups/{group}").to_ascii_lowercase()
}

/// Id of a new resource: its group's id as first written, then type and name as written now.
pub fn resource_id(group: &Resource, kind: &str, name: &str) -> String {
    format!("{}/providers/{kind}/{name}", group.id)
}

/// Checks a name that will also be a file's name on a host.
pub fn check_name(kind: &str, name: &str, longest: usize) -> Result<(), Refusal> {
    let fits = !name.is_empty()
        && name.len() <= longest
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if fits {
        return Ok(());
    }
    let message = format!(
        "'{name}' is not a valid name for {kind}: it must have 1 to {longest} letters, digits, '.', '_' or '-', begin \
         with a letter or digit and end with one or with '_'."
    );
    Err(Refusal::new(Kind::BadRequest, "InvalidResourceName", message).at("name"))
}

/// Checks a `location` against the one region; spaces and case do not matter.
pub fn check_location(kind: &str, given: Option<&str>, region: &str) -> Result<(), Refusal> {
    let Some(given) = given.filter(|text| !text.is_empty()) else {
        let message = "The location property is required for this definition.";
        return Err(Refusal::new(Kind::BadRequest, "LocationRequired", message).at("location"));
    };
    if given.replace(' ', "").eq_ignore_ascii_case(region) {
        return Ok(());
    }
    let message = format!(
        "The provided location '{given}' is not available for resource type '{kind}'. List of available regions for \
         the resource type is '{region}'."
    );
    Err(Refusal::new(Kind::BadRequest, "LocationNotAvailableForResourceType", message).at("location"))
}
