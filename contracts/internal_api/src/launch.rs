//! What the host is told to launch, and what the VM's evidence says it was launched with.
//!
//! HOST_DATA of the report is SHA-256 of the bytes of the [`LaunchDocument`], exactly as the control plane wrote them.
//! Nobody re-serialises it: the bytes travel with the assignment, and the attestation service shows them under
//! `x-ms-inittime`.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

/// The identity of a VM and of everything its boot depends on that the firmware does not measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LaunchDocument {
    /// Format version: 1.
    pub version: u32,
    /// Upper-case GUID.
    pub vm_id: String,
    /// Resource Manager id.
    pub resource_id: String,
    /// SHA-256 (hex) of the image's manifest.
    pub image_digest: String,
    /// SHA-256 (hex) of the provisioning data's bytes.
    pub provisioning_digest: String,
    /// What is encrypted.
    pub security_encryption: SecurityEncryption,
    /// Whether UEFI Secure Boot is on.
    pub secure_boot: bool,
    /// URL of the key-encryption key with its version, `https://host:port/keys/name/version`.
    pub key_id: String,
    /// URL of the key of the VM's first start, if `key_id` is another one by now: a guest state that does not say which key
    /// it is wrapped to is under that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_key_id: Option<String>,
    /// How a running VM makes sure that it may still have its key; nothing means [`KeyCheck::default`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_check: Option<KeyCheck>,
    /// Base URL of the attestation service.
    pub attestation_url: String,
    /// SHA-256 (hex) of the PEM bundle under which both services' TLS certificates verify.
    pub trust_bundle_digest: String,
    /// SubjectPublicKeyInfo (PEM) of the tenant's RSA recovery key; the volume's recovery passphrase is wrapped to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_key: Option<String>,
}

/// How often a running VM asks for its key again, and what it does when it is refused. Only a refusal of the key service
/// counts: a service that does not answer stops no VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyCheck {
    /// Seconds between two questions; at least 1.
    pub interval_seconds: u32,
    /// Seconds from the first refusal to the end of the VM, if the refusals go on.
    pub grace_seconds: u32,
}

impl Default for KeyCheck {
    /// Every 15 minutes, and five minutes of grace.
    fn default() -> Self {
        Self { interval_seconds: 900, grace_seconds: 300 }
    }
}

/// `securityEncryptionType` of the OS disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityEncryption {
    /// OS disk and guest state.
    DiskWithVMGuestState,
    /// Guest state only; the OS disk stays as the image has it.
    VMGuestStateOnly,
}

/// The tenant's provisioning data. The launch document holds the hash of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProvisioningData {
    /// Format version: 1.
    pub version: u32,
    /// Host name.
    pub computer_name: String,
    /// The user to create, with password-less sudo.
    pub admin_username: String,
    /// Lines for `authorized_keys`.
    pub ssh_public_keys: Vec<String>,
    /// `customData`, base64 as the tenant sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_data: Option<String>,
}

/// SHA-256 in lower-case hex, as the launch document writes it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}
