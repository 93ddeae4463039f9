//! Key Vault keys data plane: keys themselves, their lists, deletion and release. What is done with a key is in
//! [`crate::key_operations`], how one is brought along in [`crate::key_import`], how it is renewed in
//! [`crate::key_rotation`].
//!
//! Source: Azure/azure-rest-api-specs `specification/keyvault/data-plane`, versions 7.3 to 2025-07-01.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::jwk::Jwk;

/// Wrapping of a released key: RSA-OAEP (hash in the name, SHA-1 for the first) of a KEK, then AES-KWP of the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum KeyEncryption {
    /// RSA-OAEP with SHA-1.
    #[default]
    #[serde(rename = "CKM_RSA_AES_KEY_WRAP")]
    CkmRsaAesKeyWrap,
    /// RSA-OAEP with SHA-256.
    #[serde(rename = "RSA_AES_KEY_WRAP_256")]
    RsaAesKeyWrap256,
    /// RSA-OAEP with SHA-384.
    #[serde(rename = "RSA_AES_KEY_WRAP_384")]
    RsaAesKeyWrap384,
}

/// `attributes` of a key; times are Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct KeyAttributes {
    /// A disabled key answers no operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// Set by the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// Set by the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<i64>,
    /// Days of soft delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoverable_days: Option<i32>,
    /// For example `Recoverable+Purgeable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_level: Option<String>,
    /// Whether the private key may be released; cannot change later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exportable: Option<bool>,
    /// What the hardware security module that holds the key says it is; absent for a key that is sealed in software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsm_platform: Option<String>,
}

/// `release_policy`: the policy's JSON as base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct KeyReleasePolicy {
    /// `application/json; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The policy document.
    #[serde(with = "crate::encoding::base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub data: Vec<u8>,
    /// An immutable policy can never be replaced.
    #[serde(default)]
    pub immutable: bool,
}

/// Body of `POST /keys/{name}/create`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyCreateParameters {
    /// `RSA`, `RSA-HSM`, `EC`, `EC-HSM`, `oct`, `oct-HSM`, in any case.
    pub kty: String,
    /// 2048, 3072 or 4096 for RSA, 128, 192 or 256 for oct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_size: Option<u32>,
    /// 65537 if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_exponent: Option<u32>,
    /// Permitted operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_ops: Vec<String>,
    /// Attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Needed for exportable keys, forbidden for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_policy: Option<KeyReleasePolicy>,
    /// `P-256`, `P-384`, `P-521`, `P-256K`; for elliptic curves only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
}

/// A key as the vault answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyBundle {
    /// Public part; `kid` is the key's URL with its version.
    pub key: Jwk,
    /// Attributes.
    pub attributes: KeyAttributes,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The release policy of an exportable key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_policy: Option<KeyReleasePolicy>,
}

/// Body of `PATCH /keys/{name}/{version}`: what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyUpdateParameters {
    /// Permitted operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_ops: Option<Vec<String>>,
    /// `enabled`, `nbf`, `exp`; `exportable` cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// Free labels, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// Only without a version in the path, and never for an immutable policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_policy: Option<KeyReleasePolicy>,
}

/// A key in a list: no key material.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyItem {
    /// The key's URL, in lists of versions with the version.
    pub kid: String,
    /// Attributes.
    pub attributes: KeyAttributes,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// How it was deleted, in lists of deleted keys.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Deletion>,
}

/// Answer of `GET /keys`, `GET /keys/{name}/versions` and `GET /deletedkeys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct KeyListResult {
    /// One page.
    pub value: Vec<KeyItem>,
    /// URL of the next page.
    pub next_link: Option<String>,
}

/// When a key was deleted, and until when it can be recovered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// URL of the deleted key.
    pub recovery_id: String,
    /// Unix seconds.
    pub deleted_date: i64,
    /// Unix seconds; from then on the key is gone.
    pub scheduled_purge_date: i64,
}

/// Answer of `DELETE /keys/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeletedKeyBundle {
    /// The newest version.
    #[serde(flatten)]
    pub bundle: KeyBundle,
    /// When it goes for good.
    #[serde(flatten)]
    pub deletion: Deletion,
}

/// Body of `POST /keys/{name}/{version}/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyReleaseParameters {
    /// The attestation token.
    pub target: String,
    /// Echoed in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// How the key is wrapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enc: Option<KeyEncryption>,
    /// URL (with version) of the key that shall follow the released one in protecting the caller's guest state. An
    /// extension of Casemate: the answer then holds a [`KeySuccession`], or the release is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

/// Tag of a key whose value is the URL of the key that may follow it, with or without a version.
pub const SUCCESSOR_TAG: &str = "casemate-successor";

/// What a released key says about the key that may follow it: signed by the released key itself, so that it needs no trust
/// in whoever carried the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct KeySuccession {
    /// URL of the successor with its version.
    pub kid: String,
    /// SHA-256 (hex) of the successor's SubjectPublicKeyInfo.
    pub public_key_digest: String,
    /// RSASSA-PSS with SHA-256 by the released key over [`succession_statement`].
    #[serde(with = "crate::encoding::base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub signature: Vec<u8>,
}

/// The bytes that a [`KeySuccession`] signs: which key lets which key follow, in the answer to which request.
pub fn succession_statement(
    released: &str,
    successor: &str,
    public_key_digest: &str,
    nonce: &str,
) -> Vec<u8> {
    let parts = ["casemate-key-succession-1", released, successor, public_key_digest, nonce];
    serde_json::to_vec(&parts).unwrap_or_default()
}

/// Answer of `release`: a JWS whose payload is a [`ReleasePayload`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyReleaseResult {
    /// Compact JWS, RS256, with `x5c`.
    pub value: String,
}

/// Payload of the release JWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReleasePayload {
    /// What was asked.
    pub request: ReleaseRequestEcho,
    /// What was released.
    pub response: ReleaseResponse,
}

/// The request as the service understood it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct ReleaseRequestEcho {
    /// API version of the request.
    pub api_version: String,
    /// Wrapping.
    pub enc: KeyEncryption,
    /// The key's id.
    pub kid: String,
    /// The caller's nonce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// The wrapped key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReleaseResponse {
    /// Bundle whose `key.key_hsm` is base64url of the JSON of [`KeyHsm`].
    pub key: KeyBundle,
    /// The key that may follow, if the request asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succession: Option<KeySuccession>,
}

/// `key_hsm`: OAEP block of the KEK (as long as the modulus), then AES-KWP of the PKCS#8 key (RSA, EC)
/// or of the key's bytes (oct).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyHsm {
    /// `1.0`.
    pub schema_version: String,
    /// JWE-like header; `alg` is `dir` although it is not.
    pub header: KeyHsmHeader,
    /// The two blocks.
    #[serde(with = "crate::encoding::base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub ciphertext: Vec<u8>,
}

/// Header of [`KeyHsm`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyHsmHeader {
    /// The wrapping key's id in the token.
    pub kid: String,
    /// `dir`.
    pub alg: String,
    /// The wrapping.
    pub enc: KeyEncryption,
}
