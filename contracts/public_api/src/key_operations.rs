//! What is done with a key of a vault: `encrypt`, `decrypt`, `wrapkey`, `unwrapkey`, `sign`, `verify`; random bytes;
//! backup and restore. Binary members are base64url.
//!
//! Source: Azure/azure-rest-api-specs `specification/keyvault/data-plane`, `KeyOperationsParameters`,
//! `KeyOperationResult`, `KeySignParameters`, `KeyVerifyParameters`, `GetRandomBytesRequest`, `BackupKeyResult`.

use serde::{Deserialize, Serialize};

/// Body of `encrypt`, `decrypt`, `wrapkey` and `unwrapkey`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyOperationParameters {
    /// `RSA1_5`, `RSA-OAEP`, `RSA-OAEP-256`, `A128GCM`, `A128CBC`, `A128CBCPAD`, `A128KW` and so on.
    pub alg: String,
    /// Input.
    #[serde(with = "crate::encoding::base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub value: Vec<u8>,
    /// Initialisation vector: 16 bytes for CBC, 12 bytes to decrypt GCM.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::encoding::optional_base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub iv: Option<Vec<u8>>,
    /// What GCM authenticates beside the value.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::encoding::optional_base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub aad: Option<Vec<u8>>,
    /// GCM's tag, 16 bytes, to decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::encoding::optional_base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub tag: Option<Vec<u8>>,
}

/// Answer of `encrypt`, `decrypt`, `wrapkey`, `unwrapkey` and `sign`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyOperationResult {
    /// The key that was used.
    pub kid: String,
    /// Output.
    #[serde(with = "crate::encoding::base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub value: Vec<u8>,
    /// The initialisation vector that was used to encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::encoding::optional_base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub iv: Option<Vec<u8>>,
    /// GCM's tag.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::encoding::optional_base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub tag: Option<Vec<u8>>,
    /// What GCM authenticated beside the value.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::encoding::optional_base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub aad: Option<Vec<u8>>,
}

/// Body of `sign`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeySignParameters {
    /// `RS256`, `PS256`, `ES256`, `ES256K` and so on.
    pub alg: String,
    /// The digest to sign.
    #[serde(with = "crate::encoding::base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub value: Vec<u8>,
}

/// Body of `verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyVerifyParameters {
    /// As for `sign`.
    pub alg: String,
    /// The digest that was signed.
    #[serde(with = "crate::encoding::base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub digest: Vec<u8>,
    /// The signature.
    #[serde(with = "crate::encoding::base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub value: Vec<u8>,
}

/// Answer of `verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyVerifyResult {
    /// Whether the signature holds.
    pub value: bool,
}

/// Body of `POST /rng`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetRandomBytesRequest {
    /// 1 to 128.
    pub count: u32,
}

/// Answer of `POST /rng`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RandomBytes {
    /// The bytes.
    #[serde(with = "crate::encoding::base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub value: Vec<u8>,
}

/// Answer of `backup` and body of `POST /keys/restore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyBackup {
    /// Opaque to everyone but the installation that made it.
    #[serde(with = "crate::encoding::base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub value: Vec<u8>,
}
