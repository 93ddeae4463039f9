//! Key bytes that are wiped when dropped and cannot be printed.
//!
//! Neither type has `Debug`, `Display` or a plain `Serialize`: a record that must hold a secret names the module
//! [`as_base64`] or [`as_text`] at the field, so that every place where a secret becomes text can be searched for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize as _, Zeroizing};

use crate::crypto;

/// `N` secret bytes on the heap (moves leave no copies behind), wiped on drop.
pub struct Secret<const N: usize>(Box<[u8; N]>);

/// The 64 bytes of an AES-256-XTS volume key: data key, then tweak key.
pub type VolumeKey = Secret<64>;

impl<const N: usize> Secret<N> {
    /// Fresh random bytes from the operating system's generator.
    pub fn random() -> Self {
        let mut bytes = Box::new([0; N]);
        crypto::fill_random(bytes.as_mut_slice());
        Self(bytes)
    }

    /// Takes over given bytes.
    pub fn from_bytes(bytes: [u8; N]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self(Box::new(*bytes))
    }

    /// Takes over a slice of exactly `N` bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut own = Box::new([0; N]);
        if bytes.len() != N {
            return None;
        }
        own.copy_from_slice(bytes);
        Some(Self(own))
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Clone for Secret<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A passphrase as text, wiped on drop.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// The standard base64 text of a random secret: what systemd offers to a keyslot for a sealed secret, and what a
    /// person can type for recovery.
    pub fn of_secret<const N: usize>(secret: &Secret<N>) -> Self {
        Self(Zeroizing::new(STANDARD.encode(secret.expose())))
    }

    /// Takes over given text.
    pub fn from_text(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// `#[serde(with = "sealed_disk::secret::as_base64")]` for a [`Secret`] in a record that is itself kept encrypted.
pub mod as_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use zeroize::Zeroizing;

    use super::Secret;

    /// Writes standard base64.
    pub fn serialize<const N: usize, S: Serializer>(secret: &Secret<N>, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&Zeroizing::new(STANDARD.encode(secret.expose())))
    }

    /// Reads standard base64 of exactly `N` bytes. The error text never holds the value.
    pub fn deserialize<'de, const N: usize, D: Deserializer<'de>>(input: D) -> Result<Secret<N>, D::Error> {
        let text = Zeroizing::new(String::deserialize(input)?);
        let bytes =
            Zeroizing::new(STANDARD.decode(text.as_bytes()).map_err(|_| D::Error::custom("not base64"))?);
        Secret::from_slice(&bytes).ok_or_else(|| D::Error::custom("a secret of another length"))
    }
}

/// `#[serde(with = "sealed_disk::secret::as_text")]` for a [`Passphrase`] in a record that is itself kept encrypted.
pub mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Passphrase;

    /// Writes the text.
    pub fn serialize<S: Serializer>(passphrase: &Passphrase, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(passphrase.expose())
    }

    /// Reads the text.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Passphrase, D::Error> {
        String::deserialize(input).map(Passphrase::from_text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Record {
        #[serde(with = "as_base64")]
        key: Secret<4>,
        #[serde(with = "as_text")]
        words: Passphrase,
    }

    #[test]
    fn a_record_keeps_its_secrets() {
        let record =
            Record { key: Secret::from_bytes([1, 2, 3, 4]), words: Passphrase::from_text("a b".into()) };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, r#"{"key":"AQIDBA==","words":"a b"}"#);
        let back: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(back.key.expose(), &[1, 2, 3, 4]);
        assert_eq!(back.words.expose(), "a b");
    }

    #[test]
    fn a_secret_of_another_length_is_refused_without_being_shown() {
        let error = serde_json::from_str::<Record>(r#"{"key":"AQIDBAU=","words":""}"#).err().unwrap();
        assert!(!error.to_string().contains("AQID"), "{error}");
    }

    #[test]
    fn random_secrets_differ() {
        assert_ne!(Secret::<32>::random().expose(), Secret::<32>::random().expose());
    }
}
