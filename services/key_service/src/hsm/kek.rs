//! A key-encryption key in the token for the time of one call: a session object, destroyed before the session does
//! anything else. The service made its bytes; what is wrapped under it never is in the service's memory unwrapped.

use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use zeroize::Zeroize as _;

use super::error::{Doing as _, HsmError};
use super::pool::Connection;

/// What a key-encryption key is put into the token for. None does both: that would let it take a key out under one key
/// and in again, with other attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KekUse {
    /// A release.
    Wraps,
    /// An import.
    Unwraps,
}

/// The object; it is destroyed when it goes.
pub struct Kek<'a> {
    connection: &'a Connection<'a>,
    handle: ObjectHandle,
}

impl<'a> Kek<'a> {
    /// Puts 32 bytes into the token.
    pub fn put(connection: &'a Connection<'_>, bytes: &[u8], usage: KekUse) -> Result<Self, HsmError> {
        let mut template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(false),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Derive(false),
            Attribute::Encrypt(false),
            Attribute::Decrypt(false),
            Attribute::Wrap(usage == KekUse::Wraps),
            Attribute::Unwrap(usage == KekUse::Unwraps),
            Attribute::Value(bytes.to_vec()),
        ];
        let created = connection.session.create_object(&template);
        if let Some(Attribute::Value(value)) = template.last_mut() {
            value.zeroize();
        }
        let handle = created.doing("take a key-encryption key in (C_CreateObject)")?;
        Ok(Self { connection, handle })
    }

    /// For the call.
    pub fn handle(&self) -> ObjectHandle {
        self.handle
    }
}

impl Drop for Kek<'_> {
    fn drop(&mut self) {
        // What cannot be destroyed goes with the session.
        if let Err(error) = self.connection.session.destroy_object(self.handle) {
            tracing::warn!(%error, "a key-encryption key stays in the token until its session ends");
        }
    }
}
