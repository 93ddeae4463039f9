//! A VM's body as types, after [`super::body`] brought it into shape. Every field is optional here; what must be there is
//! [`super::validation`]'s business.

use internal_api::launch::SecurityEncryption;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The body of a `PUT`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VmBody {
    /// Region.
    pub location: Option<String>,
    /// Labels.
    pub tags: Map<String, Value>,
    /// The rest.
    pub properties: VmProperties,
}

/// `properties`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VmProperties {
    /// Size.
    pub hardware_profile: HardwareProfile,
    /// Image and OS disk.
    pub storage_profile: StorageProfile,
    /// User, keys, custom data.
    pub os_profile: Option<OsProfile>,
    /// Interfaces.
    pub network_profile: NetworkProfile,
    /// What makes it confidential.
    pub security_profile: SecurityProfile,
    /// Ours.
    pub casemate: CasemateProfile,
}

/// Ours.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CasemateProfile {
    /// SubjectPublicKeyInfo (PEM) of the recovery key.
    pub recovery_key: Option<String>,
}

/// Size.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HardwareProfile {
    /// Name.
    pub vm_size: Option<String>,
}

/// Image and OS disk.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageProfile {
    /// Image.
    pub image_reference: Option<ImageReference>,
    /// OS disk.
    pub os_disk: OsDisk,
}

/// Image: an id, or four names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageReference {
    /// Resource id.
    pub id: Option<String>,
    /// First name.
    pub publisher: Option<String>,
    /// Second name.
    pub offer: Option<String>,
    /// Third name.
    pub sku: Option<String>,
    /// Fourth name, or `latest`.
    pub version: Option<String>,
}

/// OS disk.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OsDisk {
    /// `Linux`.
    pub os_type: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// `FromImage`.
    pub create_option: Option<String>,
    /// Size in GiB.
    #[serde(rename = "diskSizeGB")]
    pub disk_size_gb: Option<i32>,
    /// `Delete`.
    pub delete_option: Option<String>,
    /// Encryption.
    pub managed_disk: ManagedDisk,
}

/// Encryption.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagedDisk {
    /// Kind of storage; shown again.
    pub storage_account_type: Option<String>,
    /// Server-side encryption with a customer key.
    pub disk_encryption_set: Option<SubResource>,
    /// Confidential encryption.
    pub security_profile: Option<DiskSecurityProfile>,
}

/// Confidential encryption.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskSecurityProfile {
    /// What is encrypted.
    pub security_encryption_type: Option<EncryptionType>,
    /// With the tenant's key.
    pub disk_encryption_set: Option<SubResource>,
}

/// `securityEncryptionType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum EncryptionType {
    /// Guest state only.
    VMGuestStateOnly,
    /// OS disk and guest state.
    DiskWithVMGuestState,
    /// No guest state is kept (Intel TDX sizes only).
    NonPersistedTPM,
}

impl EncryptionType {
    /// As the specification writes it.
    pub fn text(self) -> &'static str {
        match self {
            Self::VMGuestStateOnly => "VMGuestStateOnly",
            Self::DiskWithVMGuestState => "DiskWithVMGuestState",
            Self::NonPersistedTPM => "NonPersistedTPM",
        }
    }

    /// What the launch document says, where SNP offers it.
    pub fn offered(self) -> Option<SecurityEncryption> {
        match self {
            Self::VMGuestStateOnly => Some(SecurityEncryption::VMGuestStateOnly),
            Self::DiskWithVMGuestState => Some(SecurityEncryption::DiskWithVMGuestState),
            Self::NonPersistedTPM => None,
        }
    }
}

/// A reference to another resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SubResource {
    /// Resource id.
    pub id: Option<String>,
}

/// User, keys, custom data.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OsProfile {
    /// Host name.
    pub computer_name: Option<String>,
    /// User.
    pub admin_username: Option<String>,
    /// Refused.
    pub admin_password: Option<String>,
    /// Base64.
    pub custom_data: Option<String>,
    /// Keys.
    pub linux_configuration: LinuxConfiguration,
}

/// Keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxConfiguration {
    /// Must not be false.
    pub disable_password_authentication: Option<bool>,
    /// Keys.
    pub ssh: Ssh,
}

/// Keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ssh {
    /// Keys.
    pub public_keys: Vec<SshPublicKey>,
}

/// One key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SshPublicKey {
    /// Where it is put in the guest.
    pub path: Option<String>,
    /// A line of `authorized_keys`.
    pub key_data: Option<String>,
}

/// Interfaces.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkProfile {
    /// References.
    pub network_interfaces: Vec<SubResource>,
}

/// What makes it confidential.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityProfile {
    /// `ConfidentialVM`.
    pub security_type: Option<String>,
    /// Firmware.
    pub uefi_settings: UefiSettings,
    /// Host-side encryption.
    pub encryption_at_host: Option<bool>,
}

/// Firmware.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UefiSettings {
    /// Secure Boot.
    pub secure_boot_enabled: Option<bool>,
    /// vTPM.
    pub v_tpm_enabled: Option<bool>,
}
