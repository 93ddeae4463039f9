//! Importing a key: `PUT /keys/{name}` with a private JSON Web Key (RFC 7517, RFC 7518 section 6).
//!
//! Nothing here has `Debug`, and the secret members are wiped when they go.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use zeroize::Zeroizing;

use crate::encoding::from_base64_any;
use crate::keys::{KeyAttributes, KeyReleasePolicy};

/// Bytes of a private key: base64url on the wire, wiped when they go.
#[derive(Clone)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SecretBytes(#[cfg_attr(feature = "schema", schemars(with = "String"))] Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        from_base64_any(&text).map(|bytes| Self(Zeroizing::new(bytes))).map_err(D::Error::custom)
    }
}

/// Body of `PUT /keys/{name}`.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyImportParameters {
    /// Whether the key becomes one of the kinds that end in `-HSM`. The SDKs write `Hsm`, the documentation `hsm`.
    #[serde(rename = "Hsm", alias = "hsm", default)]
    pub hsm: Option<bool>,
    /// The key.
    pub key: PrivateJwk,
    /// Attributes.
    #[serde(default)]
    pub attributes: Option<KeyAttributes>,
    /// Free labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Needed for exportable keys, forbidden for others.
    #[serde(default)]
    pub release_policy: Option<KeyReleasePolicy>,
}

/// A private (or symmetric) key. Which members it needs depends on `kty`.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PrivateJwk {
    /// Ignored: the vault names its keys itself.
    #[serde(default)]
    pub kid: Option<String>,
    /// `RSA`, `EC` or `oct`, or the same with `-HSM`.
    pub kty: String,
    /// Permitted operations.
    #[serde(default)]
    pub key_ops: Vec<String>,
    /// RSA modulus.
    #[serde(default)]
    pub n: Option<SecretBytes>,
    /// RSA public exponent.
    #[serde(default)]
    pub e: Option<SecretBytes>,
    /// RSA private exponent, or the scalar of an elliptic curve.
    #[serde(default)]
    pub d: Option<SecretBytes>,
    /// First prime.
    #[serde(default)]
    pub p: Option<SecretBytes>,
    /// Second prime.
    #[serde(default)]
    pub q: Option<SecretBytes>,
    /// `d mod (p - 1)`.
    #[serde(default)]
    pub dp: Option<SecretBytes>,
    /// `d mod (q - 1)`.
    #[serde(default)]
    pub dq: Option<SecretBytes>,
    /// `q^-1 mod p`.
    #[serde(default)]
    pub qi: Option<SecretBytes>,
    /// Symmetric key.
    #[serde(default)]
    pub k: Option<SecretBytes>,
    /// Curve.
    #[serde(default)]
    pub crv: Option<String>,
    /// X coordinate.
    #[serde(default)]
    pub x: Option<SecretBytes>,
    /// Y coordinate.
    #[serde(default)]
    pub y: Option<SecretBytes>,
    /// A key wrapped for another vendor's HSM ("bring your own key"); refused, since this vault cannot open it.
    #[serde(default)]
    pub key_hsm: Option<SecretBytes>,
}
