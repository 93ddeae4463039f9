//! Binary values in JSON: base64url without padding on output, both alphabets and optional padding on input.
//!
//! Azure's clients mix the four spellings (reference: RFC 4648 sections 4 and 5), so readers accept them all.

use base64_simd::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memchr2;

/// A text that is not base64 in either alphabet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not base64 (neither the standard nor the URL alphabet)")]
pub struct NotBase64;

/// Base64url without padding.
pub fn to_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode_to_string(bytes)
}

/// Appends base64url without padding.
pub fn push_base64url(bytes: &[u8], text: &mut String) {
    URL_SAFE_NO_PAD.encode_append(bytes, text);
}

/// Standard base64 with padding, as JWS `x5c` and Azure's key ids want it.
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode_to_string(bytes)
}

/// Lower-case hex.
pub fn to_hex(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let mut text = vec![0; 2 * bytes.len()];
    hex::encode_to_slice(bytes, &mut text).expect("the text is twice as long");
    String::from_utf8(text).expect("hex digits are ASCII")
}

/// Decodes either alphabet, padded or not.
pub fn from_base64_any(text: &str) -> Result<Vec<u8>, NotBase64> {
    let body = text.trim_end_matches('=');
    let (padding, odd) = (text.len() - body.len(), body.len() % 4);
    if padding > 0 && (odd < 2 || padding > 4 - odd) {
        return Err(NotBase64);
    }
    let standard = memchr2(b'+', b'/', body.as_bytes()).is_some();
    let engine = if standard { STANDARD_NO_PAD } else { URL_SAFE_NO_PAD };
    engine.decode_to_vec(body).map_err(|_| NotBase64)
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
        fn hex_is_hex(bytes: Vec<u8>) {
            prop_assert_eq!(to_hex(&bytes), hex::encode(&bytes));
        }

        #[test]
        fn every_spelling_decodes_to_the_same_bytes(bytes: Vec<u8>) {
            let url = to_base64url(&bytes);
            let std = to_base64(&bytes);
            prop_assert_eq!(from_base64_any(&url).unwrap(), bytes.clone());
            prop_assert_eq!(from_base64_any(&std).unwrap(), bytes.clone());
            prop_assert_eq!(from_base64_any(std.trim_end_matches('=')).unwrap(), bytes);
        }
    }

    /// The library that most use, set to accept what is accepted here.
    fn as_the_base64_crate_reads(text: &str) -> Option<Vec<u8>> {
        use base64::Engine as _;
        use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let alphabets = [base64::alphabet::URL_SAFE, base64::alphabet::STANDARD];
        alphabets.iter().find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok())
    }

    proptest! {
        #[test]
        fn another_library_reads_the_same(text in "[A-Za-z0-9+/_-]{0,70}={0,3}") {
            prop_assert_eq!(from_base64_any(&text).ok(), as_the_base64_crate_reads(&text));
        }

        #[test]
        fn another_library_refuses_the_same(text in "[AQgw]{0,9}[+/_= \\n.-]{0,2}[AQgw]{0,9}={0,3}") {
            prop_assert_eq!(from_base64_any(&text).ok(), as_the_base64_crate_reads(&text));
        }
    }

    #[test]
    fn other_characters_are_refused() {
        for text in ["a b", "a\n", "é", "====="] {
            assert_eq!(from_base64_any(text), Err(NotBase64), "{text:?}");
        }
    }
}
