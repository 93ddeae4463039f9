//! The only way out of the token: wrapped, under a policy's decision.

use cryptoki::mechanism::{Mechanism, MechanismType};
use policy::release::ReleaseDecision;

use super::error::{Doing as _, HsmError};
use super::kek::{Kek, KekUse};
use super::mechanisms::Purpose;
use super::object::{self, KeyId};
use super::pool::{Connection, Pool};
use crate::crypto::kind::Family;

/// Has the token wrap a key under `kek` (RFC 5649): PKCS#8 for RSA and elliptic curves, the bytes for AES. They never are
/// in this process's memory unwrapped. There is no way to do it without a policy's decision.
pub fn wrapped(
    _decision: &ReleaseDecision,
    pool: &Pool,
    (id, family): (KeyId, Family),
    kek: zeroize::Zeroizing<Vec<u8>>,
) -> Result<Vec<u8>, HsmError> {
    pool.run(move |connection| wrap(connection, (id, family), &kek))
}

fn wrap(connection: &Connection<'_>, (id, family): (KeyId, Family), kek: &[u8]) -> Result<Vec<u8>, HsmError> {
    connection.token.mechanisms.require(MechanismType::AES_KEY_WRAP_PAD, Purpose::Wrap)?;
    let key = object::find(connection, id, family)?;
    object::check_protected(connection, key, id, true)?;
    let kek = Kek::put(connection, kek, KekUse::Wraps)?;
    connection
        .session
        .wrap_key(&Mechanism::AesKeyWrapPad, kek.handle(), key)
        .doing("wrap a key (C_WrapKey with CKM_AES_KEY_WRAP_PAD)")
}
