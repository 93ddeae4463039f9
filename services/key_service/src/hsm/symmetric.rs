//! AES with a key in the token: GCM, CBC, and key wrap (RFC 3394).

use aws_lc_rs::rand;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use zeroize::{Zeroize as _, Zeroizing};

use super::error::{Doing as _, HsmError};
use super::mechanisms::Purpose;
use super::object::{self, KeyId};
use super::pool::Connection;
use super::private::{decrypted, of_value};
use crate::crypto::kind::Family;
use crate::crypto::oct::{BLOCK, CbcPadding, GCM_IV, GCM_TAG, GcmOutput};

/// RFC 3394 works on words of this many bytes, two at least.
const WORD: usize = 8;

fn key(
    connection: &Connection<'_>,
    id: KeyId,
    (mechanism, purpose): (MechanismType, Purpose),
) -> Result<ObjectHandle, HsmError> {
    connection.token.mechanisms.require(mechanism, purpose)?;
    object::find(connection, id, Family::Oct)
}

/// Encrypts under a new random nonce.
pub fn gcm_encrypt(
    connection: &Connection<'_>,
    id: KeyId,
    value: &[u8],
    aad: &[u8],
) -> Result<GcmOutput, HsmError> {
    let key = key(connection, id, (MechanismType::AES_GCM, Purpose::Encrypt))?;
    let mut iv = [0; GCM_IV];
    rand::fill(&mut iv).expect("the system has random numbers");
    let nonce = iv.to_vec();
    let mechanism = gcm(&mut iv, aad)?;
    let mut value = connection.session.encrypt(&mechanism, key, value).doing("encrypt with CKM_AES_GCM")?;
    let start = value.len().checked_sub(GCM_TAG).ok_or(HsmError::Answer("a ciphertext"))?;
    let tag = value.split_off(start);
    Ok(GcmOutput { value, iv: nonce, tag })
}

/// Decrypts what has this tag.
pub fn gcm_decrypt(
    connection: &Connection<'_>,
    id: KeyId,
    value: &[u8],
    (iv, tag, aad): (&[u8], &[u8], &[u8]),
) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let mut iv: [u8; GCM_IV] = iv.try_into().map_err(|_| HsmError::Value)?;
    if tag.len() != GCM_TAG {
        return Err(HsmError::Value);
    }
    let key = key(connection, id, (MechanismType::AES_GCM, Purpose::Decrypt))?;
    let mechanism = gcm(&mut iv, aad)?;
    decrypted(connection, &mechanism, key, &[value, tag].concat())
}

fn gcm<'a>(iv: &'a mut [u8], aad: &'a [u8]) -> Result<Mechanism<'a>, HsmError> {
    let bits = u64::try_from(GCM_TAG * 8).expect("128 fits").into();
    GcmParams::new(iv, aad, bits).map(Mechanism::AesGcm).doing("take the parameters of CKM_AES_GCM")
}

/// Encrypts whole blocks, or pads them.
pub fn cbc_encrypt(
    connection: &Connection<'_>,
    id: KeyId,
    padding: CbcPadding,
    value: &[u8],
    iv: &[u8],
) -> Result<Vec<u8>, HsmError> {
    let mechanism = cbc(padding, iv)?;
    if padding == CbcPadding::None && (value.is_empty() || !value.len().is_multiple_of(BLOCK)) {
        return Err(HsmError::Value);
    }
    let key = key(connection, id, (mechanism.mechanism_type(), Purpose::Encrypt))?;
    connection.session.encrypt(&mechanism, key, value).doing("encrypt with CKM_AES_CBC")
}

/// Decrypts. A wrong padding is the same error as a wrong length.
pub fn cbc_decrypt(
    connection: &Connection<'_>,
    id: KeyId,
    padding: CbcPadding,
    value: &[u8],
    iv: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let mechanism = cbc(padding, iv)?;
    if value.is_empty() || !value.len().is_multiple_of(BLOCK) {
        return Err(HsmError::Value);
    }
    let key = key(connection, id, (mechanism.mechanism_type(), Purpose::Decrypt))?;
    decrypted(connection, &mechanism, key, value)
}

fn cbc(padding: CbcPadding, iv: &[u8]) -> Result<Mechanism<'static>, HsmError> {
    let iv: [u8; BLOCK] = iv.try_into().map_err(|_| HsmError::Value)?;
    Ok(match padding {
        CbcPadding::None => Mechanism::AesCbc(iv),
        CbcPadding::Pkcs7 => Mechanism::AesCbcPad(iv),
    })
}

/// Wraps a value of whole words. A token wraps objects, so the value becomes one for the time of the call.
pub fn wrap(connection: &Connection<'_>, id: KeyId, value: &[u8]) -> Result<Vec<u8>, HsmError> {
    if value.len() < 2 * WORD || !value.len().is_multiple_of(WORD) {
        return Err(HsmError::Value);
    }
    let key = key(connection, id, (MechanismType::AES_KEY_WRAP, Purpose::Wrap))?;
    let mut template = value_template().to_vec();
    template.push(Attribute::Value(value.to_vec()));
    let created = connection.session.create_object(&template);
    if let Some(Attribute::Value(value)) = template.last_mut() {
        value.zeroize();
    }
    let object = created.doing("take the value in (C_CreateObject)")?;
    let wrapped = connection.session.wrap_key(&Mechanism::AesKeyWrap, key, object);
    connection.session.destroy_object(object).doing("destroy a session object")?;
    wrapped.doing("wrap with CKM_AES_KEY_WRAP")
}

/// Unwraps; a wrong integrity check is the same error as a wrong length.
pub fn unwrap(connection: &Connection<'_>, id: KeyId, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    if value.len() < 3 * WORD || !value.len().is_multiple_of(WORD) {
        return Err(HsmError::Value);
    }
    let key = key(connection, id, (MechanismType::AES_KEY_WRAP, Purpose::Unwrap))?;
    let object = connection
        .session
        .unwrap_key(&Mechanism::AesKeyWrap, key, value, &value_template())
        .map_err(|error| of_value(connection, error, "unwrap with CKM_AES_KEY_WRAP"))?;
    let seen = connection.session.get_attributes(object, &[AttributeType::Value]);
    connection.session.destroy_object(object).doing("destroy a session object")?;
    let mut seen = seen.doing("read an unwrapped value")?;
    match seen.pop() {
        Some(Attribute::Value(value)) => Ok(Zeroizing::new(value)),
        _ => Err(HsmError::Answer("an unwrapped value")),
    }
}

/// A caller's own value, which the caller gave or gets: not sensitive to this service, and gone after the call.
fn value_template() -> [Attribute; 6] {
    [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}
