//! A VM as the control plane keeps it: what is wanted, and what was fixed when it was created.

use internal_api::host::Power;
use internal_api::launch::SecurityEncryption;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a tenant wants now. Changes with every request, under a new generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VmDesired {
    /// Labels.
    pub tags: Map<String, Value>,
    /// `properties` as they are shown: in shape, without secrets.
    pub properties: Value,
    /// Wanted power.
    pub power: WantedPower,
    /// How many restarts were asked for.
    pub restarts: u64,
    /// Generation of the newest change that its host has to do something for. Labels change without the host.
    pub asked: u64,
}

/// Wanted power. For the host, `Stopped` and `Deallocated` are the same; placement takes back the room of the latter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WantedPower {
    /// On.
    Running,
    /// Off, its place kept.
    Stopped,
    /// Off, its place given up.
    Deallocated,
}

impl WantedPower {
    /// What the host is told.
    pub fn power(self) -> Power {
        match self {
            Self::Running => Power::On,
            Self::Stopped | Self::Deallocated => Power::Off,
        }
    }
}

/// What was fixed at creation. Only a resize replaces `size`, `vcpus` and `memory_mib`, and only a change of the key the
/// three members that name it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VmFacts {
    /// Name of the size.
    pub size: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory.
    pub memory_mib: u64,
    /// SHA-256 (hex) of the image's manifest.
    pub image_digest: String,
    /// Size of the OS disk.
    pub disk_bytes: u64,
    /// What is encrypted.
    pub encryption: SecurityEncryption,
    /// Secure Boot.
    pub secure_boot: bool,
    /// Id of the OS disk's resource.
    pub disk_id: String,
    /// Id of the disk encryption set that names the tenant's key.
    pub disk_encryption_set: Option<String>,
    /// The URL of the tenant's key that the VM shall be under; nothing for its platform key.
    pub tenant_key: Option<String>,
    /// A platform key was wanted once, and goes with the VM.
    #[serde(default)]
    pub platform_key: bool,
    /// SubjectPublicKeyInfo (PEM) of the tenant's recovery key.
    pub recovery_key: Option<String>,
}

/// Name and version in the URL of a key.
pub fn key_in_url(url: &str) -> Option<(&str, &str)> {
    let (_, path) = url.split_once("/keys/")?;
    path.split_once('/').filter(|(name, version)| !name.is_empty() && !version.is_empty())
}

/// Name of the platform key of a VM in the key service.
pub fn platform_key_name(vm_id: &str) -> String {
    format!("vm-{}", vm_id.to_ascii_lowercase())
}

/// `securityType` of the OS disk's resource.
pub fn disk_security_type(encryption: SecurityEncryption, customer_key: bool) -> &'static str {
    match (encryption, customer_key) {
        (SecurityEncryption::VMGuestStateOnly, _) => {
            "ConfidentialVM_VMGuestStateOnlyEncryptedWithPlatformKey"
        }
        (SecurityEncryption::DiskWithVMGuestState, false) => "ConfidentialVM_DiskEncryptedWithPlatformKey",
        (SecurityEncryption::DiskWithVMGuestState, true) => "ConfidentialVM_DiskEncryptedWithCustomerKey",
    }
}
