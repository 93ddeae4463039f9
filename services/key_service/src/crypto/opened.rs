//! Private keys that were opened and read: ready for use. Reading an RSA key takes longer than using it.

use super::ec::EcPrivate;
use super::error::CryptoError;
use super::kind::PublicKey;
use super::rsa::RsaPrivate;
use super::seal::PrivateKey;

/// A private key, ready for use. It has no `Debug`; what it holds is wiped when it goes (AWS-LC's `OPENSSL_free` clears
/// what it frees).
pub enum OpenedKey {
    /// Signs and decrypts.
    Rsa(RsaPrivate),
    /// Signs.
    Ec(EcPrivate),
    /// Encrypts, decrypts, wraps and unwraps.
    Oct(PrivateKey),
}

impl OpenedKey {
    /// Reads a private key whose public part is `public`.
    pub fn read(private: PrivateKey, public: &PublicKey) -> Result<Self, CryptoError> {
        match public {
            PublicKey::Rsa(_) => RsaPrivate::open(&private).map(OpenedKey::Rsa),
            PublicKey::Ec(point) => EcPrivate::open(&private, point.curve).map(OpenedKey::Ec),
            PublicKey::Oct(_) => Ok(OpenedKey::Oct(private)),
        }
    }

    /// The RSA key, if it is one.
    pub fn rsa(&self) -> Result<&RsaPrivate, CryptoError> {
        match self {
            OpenedKey::Rsa(key) => Ok(key),
            OpenedKey::Ec(_) | OpenedKey::Oct(_) => Err(CryptoError::Value),
        }
    }

    /// The symmetric key, if it is one.
    pub fn oct(&self) -> Result<&PrivateKey, CryptoError> {
        match self {
            OpenedKey::Oct(key) => Ok(key),
            OpenedKey::Ec(_) | OpenedKey::Rsa(_) => Err(CryptoError::Value),
        }
    }
}
