//! What the database holds in place of a private key: the object's CKA_ID, sealed under the master key.
//!
//! It is bound to everything that a sealed key is bound to, and by a label of its own to being a reference. Who can write to
//! the database but has no master key can neither give a name another key's object, nor an object another policy, nor
//! pass a sealed key for a reference.

use zeroize::Zeroizing;

use super::object::KeyId;
use crate::crypto::seal::{MasterKey, PrivateKey, Sealed};

/// Before the binding, so that no sealed key opens as a reference and no reference as a key.
const LABEL: &[u8] = b"casemate hsm reference v1\0";
/// The only form that there is.
const FORM: u8 = 1;

/// Nonce, form, id and tag. No sealed key is so long, so that for most keys nothing is opened to see that they are none.
const SEALED_LEN: usize = 12 + 1 + 16 + 16;

/// A key in the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference(pub KeyId);

impl Reference {
    /// Seals it to `binding`.
    pub fn seal(self, master: &MasterKey, binding: &[u8]) -> Sealed {
        let content = PrivateKey::new(Zeroizing::new([&[FORM], self.0.as_bytes()].concat()));
        master.seal(&content, &bound(binding))
    }

    /// Opens what was sealed to `binding`; nothing if it is no reference, or not of this key.
    pub fn open(master: &MasterKey, sealed: &Sealed, binding: &[u8]) -> Option<Self> {
        if sealed.as_bytes().len() != SEALED_LEN {
            return None;
        }
        let content = master.open(sealed, &bound(binding)).ok()?;
        match content.as_bytes().split_first() {
            Some((&FORM, id)) => KeyId::from_bytes(id).map(Self),
            _ => None,
        }
    }
}

fn bound(binding: &[u8]) -> Vec<u8> {
    [LABEL, binding].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MasterKeyConfig, MasterKeySource, Secret};

    #[test]
    fn a_reference_is_no_key_a_key_is_no_reference_and_neither_moves() {
        let folder = tempfile::tempdir().unwrap();
        let source = MasterKeySource::Plain(Secret::File(folder.path().join("key")));
        let master = MasterKey::load(&MasterKeyConfig { source, create: true }, None).unwrap();
        let id = KeyId::random();
        let sealed = Reference(id).seal(&master, b"one");
        assert_eq!(Reference::open(&master, &sealed, b"one"), Some(Reference(id)));
        assert_eq!(Reference::open(&master, &sealed, b"two"), None);
        assert!(master.open(&sealed, b"one").is_err(), "not a key");
        assert_eq!(sealed.as_bytes().len(), SEALED_LEN);
        let key = PrivateKey::new(Zeroizing::new([&[FORM][..], id.as_bytes()].concat()));
        let key = master.seal(&key, b"one");
        assert_eq!(Reference::open(&master, &key, b"one"), None, "not a reference");
    }
}
