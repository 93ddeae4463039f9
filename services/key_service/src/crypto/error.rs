//! What the operations on keys can end with.

/// An operation that was refused. Everything that a decryption can fail for is one variant with one text, so that no
/// answer tells a wrong padding from a wrong length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// Not a public key that can be used.
    #[error("not a usable public key")]
    PublicKey,
    /// The stored private key cannot be read.
    #[error("not a usable private key")]
    PrivateKey,
    /// The input does not fit the key, or does not decrypt.
    #[error("the value cannot be processed with this key and algorithm")]
    Value,
}
