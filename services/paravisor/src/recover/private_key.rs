//! The tenant's private key.

use std::path::Path;

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use sealed_disk::secret::{Passphrase, Secret};
use x509_cert::der::SecretDocument;
use zeroize::Zeroizing;

use super::folder::read;
use super::refusal;
use crate::failure::Stop;

/// An RSA key that unwraps what was wrapped to the tenant.
pub(super) struct PrivateKey(OaepPrivateDecryptingKey);

impl PrivateKey {
    /// Reads PKCS #8 in PEM, unencrypted.
    pub(super) fn read(path: &Path) -> Result<Self, Stop> {
        let bytes = Zeroizing::new(read(path)?);
        let pem = std::str::from_utf8(&bytes).map_err(|_| refusal::private_key("it is not text"))?;
        let (label, der) =
            SecretDocument::from_pem(pem).map_err(|_| refusal::private_key("it is not PEM"))?;
        if label != "PRIVATE KEY" {
            return Err(refusal::private_key(&format!("it is a PEM of {label}")));
        }
        let key = PrivateDecryptingKey::from_pkcs8(der.as_bytes())
            .map_err(|_| refusal::private_key("it is not an RSA key of 2048 to 8192 bits"))?;
        let key =
            OaepPrivateDecryptingKey::new(key).map_err(|_| refusal::private_key("it cannot decrypt"))?;
        Ok(Self(key))
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, Stop> {
        let mut plain = Zeroizing::new(vec![0; self.0.min_output_size()]);
        let length = self
            .0
            .decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut plain, None)
            .map_err(|_| refusal::wrong_key())?
            .len();
        plain.truncate(length);
        Ok(plain)
    }

    /// The recovery passphrase.
    pub(super) fn passphrase(&self, wrapped: &[u8]) -> Result<Passphrase, Stop> {
        let plain = self.unwrap(wrapped)?;
        let text = std::str::from_utf8(&plain).map_err(|_| refusal::recovery("the passphrase is no text"))?;
        Ok(Passphrase::from_text(text.to_owned()))
    }

    /// The key of the recovery document.
    pub(super) fn document_key(&self, wrapped: &[u8]) -> Result<Secret<32>, Stop> {
        let plain = self.unwrap(wrapped)?;
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(&*plain, key.as_mut_slice())
            .map_err(|_| refusal::recovery("the document key is not 64 hex digits"))?;
        Ok(Secret::from_bytes(*key))
    }
}
