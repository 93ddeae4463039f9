//! KEY_PROTECTOR (file 6): the data store key of the current and of the last generation, wrapped to the VM's
//! key-encryption key with RSA-OAEP (SHA-256). Readable before the state is unlocked.
//!
//! ```text
//! 0  dek[2] x 512    1024  gsp[2] x {u32 length, 512}    2056  u32 active
//! ```
//! The entry in use is `active % 2`. The `gsp` part (seeds of a host) is not used and stays zero.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
};
use zeroize::Zeroizing;

use super::StateError;
use crate::secret::Secret;

const SLOT_BYTES: usize = 512;
const ACTIVE_AT: usize = 2056;
const BYTES: usize = ACTIVE_AT + 4;

/// The VM's key-encryption key, as the key service released it.
pub struct Kek {
    private: OaepPrivateDecryptingKey,
    public: KekPublic,
}

/// What is kept of a key-encryption key to wrap to it.
#[derive(Clone)]
pub(super) struct KekPublic {
    key: Arc<OaepPublicEncryptingKey>,
    pub(super) spki: Arc<[u8]>,
    /// Its name, for whoever opens the state later.
    pub(super) id: Option<String>,
}

impl Kek {
    /// From PKCS#8 DER: RSA with 2048 to 4096 bits.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, StateError> {
        let key = PrivateDecryptingKey::from_pkcs8(der).map_err(|_| StateError::KekRejected)?;
        if !(2048..=4096).contains(&key.key_size_bits()) {
            return Err(StateError::KekRejected);
        }
        let public = key.public_key();
        let spki: PublicKeyX509Der<'_> = public.as_der().map_err(|_| StateError::KekRejected)?;
        let spki = spki.as_ref().into();
        let public = OaepPublicEncryptingKey::new(public).map_err(|_| StateError::KekRejected)?;
        let public = KekPublic { key: Arc::new(public), spki, id: None };
        let private = OaepPrivateDecryptingKey::new(key).map_err(|_| StateError::KekRejected)?;
        Ok(Self { private, public })
    }

    /// The same key under the name that a state wrapped to it shall carry in clear.
    #[must_use]
    pub fn named(mut self, id: &str) -> Self {
        self.public.id = Some(id.to_owned());
        self
    }

    /// SubjectPublicKeyInfo of its public part (DER).
    pub fn spki(&self) -> &[u8] {
        &self.public.spki
    }

    pub(super) fn public(&self) -> KekPublic {
        self.public.clone()
    }
}

/// The parsed file.
#[derive(Clone)]
pub(super) struct KeyProtector {
    slots: [[u8; SLOT_BYTES]; 2],
    active: u32,
}

impl KeyProtector {
    pub(super) fn empty() -> Self {
        Self { slots: [[0; SLOT_BYTES]; 2], active: 0 }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, StateError> {
        let bytes: &[u8; BYTES] =
            bytes.try_into().map_err(|_| StateError::Tampered { what: "key protector" })?;
        let slot = |at: usize| bytes[at..at + SLOT_BYTES].try_into().expect("512 bytes");
        let active = u32::from_le_bytes(bytes[ACTIVE_AT..].try_into().expect("four bytes"));
        Ok(Self { slots: [slot(0), slot(SLOT_BYTES)], active })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        bytes[..SLOT_BYTES].copy_from_slice(&self.slots[0]);
        bytes[SLOT_BYTES..2 * SLOT_BYTES].copy_from_slice(&self.slots[1]);
        bytes[ACTIVE_AT..].copy_from_slice(&self.active.to_le_bytes());
        bytes
    }

    /// Index of the entry in use; the header's metadata key of this index goes with it.
    pub(super) fn index(&self) -> usize {
        (self.active % 2) as usize
    }

    /// The protector of the next generation: the new key in the other entry, which becomes the one in use.
    pub(super) fn next(&self, kek: &KekPublic, dek: &Secret<32>) -> Self {
        let mut next = Self { slots: self.slots, active: self.active.wrapping_add(1) };
        let slot = &mut next.slots[(next.active % 2) as usize];
        slot.fill(0);
        kek.key
            .encrypt(&OAEP_SHA256_MGF1SHA256, dek.expose(), slot, None)
            .expect("OAEP takes 32 bytes and any RSA key");
        next
    }

    /// The data store key of the entry in use.
    pub(super) fn unwrap(&self, kek: &Kek) -> Result<Secret<32>, StateError> {
        let slot = &self.slots[self.index()];
        let (wrapped, rest) = slot.split_at(kek.private.key_size_bytes());
        if rest.iter().any(|&byte| byte != 0) {
            return Err(StateError::WrongKey);
        }
        let mut plain = Zeroizing::new(vec![0; kek.private.min_output_size()]);
        let dek = kek
            .private
            .decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut plain, None)
            .map_err(|_| StateError::WrongKey)?;
        Secret::from_slice(dek).ok_or(StateError::WrongKey)
    }
}
