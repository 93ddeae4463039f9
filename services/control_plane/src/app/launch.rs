//! The launch document, the provisioning data and the release policy of a VM: written once, then only carried; but for the
//! key, which can change.

use internal_api::launch::{KeyCheck, LaunchDocument, ProvisioningData, sha256_hex};
use public_api::keys::{KeyAttributes, KeyCreateParameters, KeyReleasePolicy};
use serde_json::{Value, json};

use super::vm::VmFacts;

/// Writes the provisioning data's bytes.
pub fn provisioning_text(data: &ProvisioningData) -> String {
    serde_json::to_string(data).expect("the type has only string keys")
}

/// Writes the launch document's bytes.
pub fn launch_text(document: &LaunchDocument) -> String {
    serde_json::to_string(document).expect("the type has only string keys")
}

/// What the launch document is made of.
#[derive(Clone, Copy, Debug)]
pub struct LaunchInputs<'a> {
    /// Upper-case GUID.
    pub vm_id: &'a str,
    /// Resource Manager id.
    pub resource_id: &'a str,
    /// Fixed facts.
    pub facts: &'a VmFacts,
    /// The provisioning data's bytes.
    pub provisioning_data: &'a str,
    /// URL of the key-encryption key.
    pub key_id: &'a str,
    /// Base URL of the attestation service.
    pub attestation_url: &'a str,
    /// PEM bundle of both services.
    pub trust_bundle: &'a str,
    /// How the running VM makes sure that it may still have its key.
    pub key_check: KeyCheck,
}

/// The launch document of a VM.
pub fn launch_document(inputs: LaunchInputs<'_>) -> LaunchDocument {
    LaunchDocument {
        version: 1,
        vm_id: inputs.vm_id.to_owned(),
        resource_id: inputs.resource_id.to_owned(),
        image_digest: inputs.facts.image_digest.clone(),
        provisioning_digest: sha256_hex(inputs.provisioning_data.as_bytes()),
        security_encryption: inputs.facts.encryption,
        secure_boot: inputs.facts.secure_boot,
        key_id: inputs.key_id.to_owned(),
        first_key_id: None,
        key_check: Some(inputs.key_check),
        attestation_url: inputs.attestation_url.to_owned(),
        trust_bundle_digest: sha256_hex(inputs.trust_bundle.as_bytes()),
        recovery_key: inputs.facts.recovery_key.clone(),
    }
}

/// The same launch with another key. The key of the VM's first start stays on record in it.
pub fn with_key(text: &str, key_id: &str) -> Option<String> {
    let before: LaunchDocument = serde_json::from_str(text).ok()?;
    let first = before.first_key_id.clone().unwrap_or_else(|| before.key_id.clone());
    let first_key_id = (first != key_id).then_some(first);
    Some(launch_text(&LaunchDocument { key_id: key_id.to_owned(), first_key_id, ..before }))
}

/// The policy under which a platform key is released: to this VM, launched from this image with this provisioning data,
/// attested just now by our attestation service, on the kind of secure processor that this installation allows.
pub fn release_policy(
    vm_id: &str,
    facts: &VmFacts,
    provisioning_data: &str,
    attestation_url: &str,
    development: bool,
) -> Value {
    let encryption = serde_json::to_value(facts.encryption).expect("an enum of words");
    let mut conditions = vec![
        json!({"claim": "x-ms-attestation-type", "equals": "sevsnpvm"}),
        json!({"claim": "x-ms-compliance-status", "equals": "azure-compliant-cvm"}),
        json!({"claim": "x-casemate-nonce-source", "equals": "server"}),
        json!({"claim": "x-casemate-trust-root", "equals": if development { "development" } else { "amd" }}),
        json!({"claim": "x-ms-inittime.vmId", "equals": vm_id}),
        json!({"claim": "x-ms-inittime.imageDigest", "equals": facts.image_digest}),
        json!({"claim": "x-ms-inittime.provisioningDigest", "equals": sha256_hex(provisioning_data.as_bytes())}),
        json!({"claim": "x-ms-inittime.securityEncryption", "equals": encryption}),
        json!({"claim": "x-ms-inittime.secureBoot", "equals": facts.secure_boot}),
    ];
    if let Some(key) = &facts.recovery_key {
        conditions.push(json!({"claim": "x-ms-inittime.recoveryKey", "equals": key}));
    }
    json!({"version": "1.0.0", "anyOf": [{"authority": attestation_url, "allOf": conditions}]})
}

/// How a platform key is asked for.
pub fn key_parameters(policy: &Value, vm_id: &str) -> KeyCreateParameters {
    KeyCreateParameters {
        kty: "RSA-HSM".to_owned(),
        key_size: Some(3072),
        public_exponent: None,
        key_ops: vec!["wrapKey".to_owned(), "unwrapKey".to_owned()],
        attributes: Some(KeyAttributes { exportable: Some(true), ..KeyAttributes::default() }),
        tags: [("casemate-vm".to_owned(), vm_id.to_owned())].into(),
        release_policy: Some(KeyReleasePolicy {
            content_type: Some("application/json; charset=utf-8".to_owned()),
            data: policy.to_string().into_bytes(),
            immutable: true,
        }),
        crv: None,
    }
}
