//! Binary values in JSON: base64url without padding on output, both alphabets and optional padding on input.
//!
//! Azure's clients mix the four spellings (reference: RFC 4648 sections 4 and 5), so readers accept them all.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::memchr2;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
const STD: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

/// A text that is not base64 in either alphabet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not base64 (neither the standard nor the URL alphabet)")]
pub struct NotBase64;

/// Base64url without padding.
pub fn to_base64url(bytes: &[u8]) -> String {
    URL.encode(bytes)
}

/// Appends base64url without padding.
pub fn push_base64url(bytes: &[u8], text: &mut String) {
    URL.encode_string(bytes, text);
}

/// Standard base64 with padding, as JWS `x5c` and Azure's key ids want it.
pub fn to_base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Decodes either alphabet, padded or not.
pub fn from_base64_any(text: &str) -> Result<Vec<u8>, NotBase64> {
    let engine = if memchr2(b'+', b'/', text.as_bytes()).is_some() { STD } else { URL };
    engine.decode(text).map_err(|_| NotBase64)
}

/// `#[serde(with = "encoding::base64url")]` for byte vectors.
pub mod base64url {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes base64url without padding.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::to_base64url(bytes))
    }

    /// Reads any spelling of base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::from_base64_any(&text).map_err(D::Error::custom)
    }
}

/// `#[serde(with = "encoding::optional_base64url")]` for byte vectors that may be missing; beside it belongs
/// `default, skip_serializing_if = "Option::is_none"`.
pub mod optional_base64url {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes base64url without padding, or null.
    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&super::to_base64url(bytes)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads any spelling of base64, or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::from_base64_any(&text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_spelling_decodes_to_the_same_bytes(bytes: Vec<u8>) {
            let url = to_base64url(&bytes);
            let std = to_base64(&bytes);
            prop_assert_eq!(from_base64_any(&url).unwrap(), bytes.clone());
            prop_assert_eq!(from_base64_any(&std).unwrap(), bytes.clone());
            prop_assert_eq!(from_base64_any(std.trim_end_matches('=')).unwrap(), bytes);
        }
    }

    #[test]
    fn other_characters_are_refused() {
        for text in ["a b", "a\n", "é", "====="] {
            assert_eq!(from_base64_any(text), Err(NotBase64), "{text:?}");
        }
    }
}
