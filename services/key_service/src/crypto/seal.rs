//! Private keys at rest: AES-256-GCM under a master key that comes from elsewhere ([`super::master`]).
//!
//! The additional data binds a ciphertext to everything that decides about the key: its name, version and type,
//! whether it is exportable, and its release policy. Who can write to the database but has no master key can therefore
//! neither swap two keys nor give a key another policy.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use zeroize::Zeroizing;

use super::master::{self, MasterKeyError, RawKey};
use crate::config::MasterKeyConfig;

/// Label of the key that backups are encrypted under (HKDF's info), and their additional data.
const BACKUP_LABEL: &[u8] = b"casemate key backup v1";
/// Label of the key that a named vault seals under (HKDF's info); the vault's id follows.
const VAULT_LABEL: &[u8] = b"casemate named vault v1\0";
/// Label of the ids of objects that a move of a vault puts into a token (HKDF's info); the move's id and a hash follow.
const MOVED_LABEL: &[u8] = b"casemate moved key v1\0";
/// Label before the master key when its id is computed, so that the id is a hash of nothing else.
const ID_LABEL: &[u8] = b"casemate master key id v1\0";

/// A private key in memory: PKCS#8 for RSA and elliptic curves, the bytes themselves for a symmetric key. It has no
/// `Debug`, and its bytes are wiped when it goes.
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    /// Takes the bytes over.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// The bytes. Callers must not copy it into anything that is not wiped.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Nonce, ciphertext and tag.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// From the database.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// For the database.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a sealed key is bound to, beside the master key.
pub struct Binding<'a> {
    /// Name, in lower case: names are compared without regard to case.
    pub name: &'a str,
    /// Version.
    pub version: &'a str,
    /// Type.
    pub kty: &'a str,
    /// Whether it may be released.
    pub exportable: bool,
    /// Policy document, and whether it is immutable.
    pub policy: Option<(&'a [u8], bool)>,
}

impl Binding<'_> {
    /// One unambiguous byte string: every field with its length before it.
    pub fn bytes(&self) -> Vec<u8> {
        let (policy, immutable) = self.policy.unwrap_or((&[], false));
        let flags = [u8::from(self.exportable), u8::from(self.policy.is_some()), u8::from(immutable)];
        let fields: [&[u8]; 5] =
            [self.name.as_bytes(), self.version.as_bytes(), self.kty.as_bytes(), &flags, policy];
        let mut bytes = b"casemate sealed key v1".to_vec();
        for field in fields {
            bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }
}

/// The master key's public name: the first half of a hash, hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterKeyId(String);

impl MasterKeyId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A sealed key that does not open: damaged, moved to another name, or its policy was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored key does not open: the database was changed or damaged")]
pub struct SealBroken;

/// The key that seals all others.
pub struct MasterKey {
    key: RandomizedNonceKey,
    backups: RandomizedNonceKey,
    derivation: Prk,
    id: MasterKeyId,
}

impl MasterKey {
    /// Gets the key that a database was sealed under (`expected`), or for a new database gets or makes one.
    pub fn load(config: &MasterKeyConfig, expected: Option<&str>) -> Result<Self, MasterKeyError> {
        let key = master::obtain(config, expected)?;
        let found = id_of(&key);
        if let Some(expected) = expected.filter(|id| *id != found.as_str()) {
            let (place, expected) = (config.source.to_string(), expected.to_owned());
            return Err(MasterKeyError::Wrong { place, expected, found: found.0 });
        }
        Ok(Self::new(&key, found))
    }

    fn new(key: &RawKey, id: MasterKeyId) -> Self {
        let derivation = Salt::new(HKDF_SHA256, &[]).extract(key.as_slice());
        let backups = derived(&derivation, &[BACKUP_LABEL]);
        let usable = |key: &RawKey| {
            RandomizedNonceKey::new(&AES_256_GCM, key.as_slice()).expect("the key has 32 bytes")
        };
        Self { key: usable(key), backups: usable(&backups), derivation, id }
    }

    /// The key that a named vault seals under: what one vault sealed opens in no other. `id` is the vault's, random and used
    /// for no second one.
    pub fn for_vault(&self, id: &str) -> Self {
        let key = derived(&self.derivation, &[VAULT_LABEL, id.as_bytes()]);
        Self::new(&key, id_of(&key))
    }

    /// The key's id.
    pub fn id(&self) -> &MasterKeyId {
        &self.id
    }

    /// Seals a private key to `binding`.
    pub fn seal(&self, key: &PrivateKey, binding: &[u8]) -> Sealed {
        Sealed(seal(&self.key, key.as_bytes(), binding))
    }

    /// Opens what was sealed to `binding`.
    pub fn open(&self, sealed: &Sealed, binding: &[u8]) -> Result<PrivateKey, SealBroken> {
        open(&self.key, &sealed.0, binding).map(PrivateKey)
    }

    /// The id of what a move puts into a token for the key that has this binding: the same at each try of that move, and
    /// not to be told without this key.
    pub fn moved_id(&self, moved: &str, binding: &[u8]) -> [u8; 16] {
        let bound = digest::digest(&digest::SHA256, binding);
        let derived = derived(&self.derivation, &[MOVED_LABEL, moved.as_bytes(), bound.as_ref()]);
        *derived.first_chunk().expect("a hash is longer")
    }

    /// Encrypts a backup under a key that is derived from this one.
    pub fn seal_backup(&self, content: &[u8]) -> Vec<u8> {
        seal(&self.backups, content, BACKUP_LABEL)
    }

    /// Opens a backup of this installation.
    pub fn open_backup(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealBroken> {
        open(&self.backups, sealed, BACKUP_LABEL)
    }
}

/// Nonce, ciphertext and tag.
pub(super) fn seal(key: &RandomizedNonceKey, content: &[u8], binding: &[u8]) -> Vec<u8> {
    let mut buffer = Zeroizing::new(Vec::with_capacity(content.len() + AES_256_GCM.tag_len()));
    buffer.extend_from_slice(content);
    let nonce = key
        .seal_in_place_append_tag(Aad::from(binding), &mut *buffer)
        .expect("what is sealed is shorter than the limit of AES-GCM");
    let mut sealed = nonce.as_ref().to_vec();
    sealed.extend_from_slice(&buffer);
    sealed
}

pub(super) fn open(
    key: &RandomizedNonceKey,
    sealed: &[u8],
    binding: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealBroken> {
    let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN).ok_or(SealBroken)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealBroken)?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let length = key.open_in_place(nonce, Aad::from(binding), &mut buffer).map_err(|_| SealBroken)?.len();
    buffer.truncate(length);
    Ok(buffer)
}

/// HKDF-SHA256 of the master key (RFC 5869).
fn derived(key: &Prk, info: &[&[u8]]) -> RawKey {
    let mut derived = Zeroizing::new([0; master::LEN]);
    key.expand(info, HKDF_SHA256)
        .and_then(|okm| okm.fill(derived.as_mut_slice()))
        .expect("a hash's length can be derived");
    derived
}

fn id_of(key: &RawKey) -> MasterKeyId {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(ID_LABEL);
    context.update(key.as_slice());
    MasterKeyId(hex::encode(&context.finish().as_ref()[..16]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{MasterKeySource, Secret};

    fn master() -> MasterKey {
        let folder = tempfile::tempdir().unwrap();
        let source = MasterKeySource::Plain(Secret::File(folder.path().join("key")));
        MasterKey::load(&MasterKeyConfig { source, create: true }, None).unwrap()
    }

    fn private(bytes: &[u8]) -> PrivateKey {
        PrivateKey::new(Zeroizing::new(bytes.to_vec()))
    }

    const BASE: Binding<'_> =
        Binding { name: "a", version: "v", kty: "RSA-HSM", exportable: true, policy: Some((b"p", false)) };

    #[test]
    fn what_a_vault_sealed_opens_in_no_other_vault_and_not_in_the_default_one() {
        let master = master();
        let (one, two) = (master.for_vault("1"), master.for_vault("2"));
        let sealed = one.seal(&private(b"secret"), &BASE.bytes());
        assert!(master.for_vault("1").open(&sealed, &BASE.bytes()).unwrap().as_bytes() == b"secret");
        for other in [&two, &master, &one.for_vault("1"), &master.for_vault("12")] {
            assert!(other.open(&sealed, &BASE.bytes()).is_err());
        }
        assert_ne!(one.id(), two.id());
        assert!(two.open_backup(&one.seal_backup(b"backup")).is_err());
    }

    #[test]
    fn the_id_of_a_moved_key_is_its_own_in_each_move_and_under_each_master_key() {
        let (master, other) = (master(), master());
        let id = master.moved_id("1", &BASE.bytes());
        assert_eq!(id, master.moved_id("1", &BASE.bytes()));
        let version = Binding { version: "w", ..BASE }.bytes();
        assert_ne!(id, master.moved_id("2", &BASE.bytes()));
        assert_ne!(id, master.moved_id("1", &version));
        assert_ne!(id, other.moved_id("1", &BASE.bytes()));
    }

    #[test]
    fn a_key_opens_under_the_binding_that_it_was_sealed_to_and_no_other() {
        let master = master();
        let sealed = master.seal(&private(b"secret"), &BASE.bytes());
        assert!(master.open(&sealed, &BASE.bytes()).unwrap().as_bytes() == b"secret");
        let others = [
            Binding { name: "b", ..BASE },
            Binding { version: "w", ..BASE },
            Binding { kty: "RSA", ..BASE },
            Binding { exportable: false, ..BASE },
            Binding { policy: None, ..BASE },
            Binding { policy: Some((b"", false)), ..BASE },
            Binding { policy: Some((b"q", false)), ..BASE },
            Binding { policy: Some((b"p", true)), ..BASE },
            Binding { name: "av", version: "", ..BASE },
        ];
        for other in others {
            assert!(master.open(&sealed, &other.bytes()).is_err());
        }
    }

    #[test]
    fn another_master_key_opens_nothing_and_has_another_id() {
        let (one, two) = (master(), master());
        assert_ne!(one.id(), two.id());
        let sealed = one.seal(&private(b"secret"), b"");
        assert!(two.open(&sealed, b"").is_err());
    }

    #[test]
    fn the_same_key_is_never_sealed_to_the_same_bytes() {
        let master = master();
        let sealed = || master.seal(&private(b"secret"), b"").as_bytes().to_vec();
        assert_ne!(sealed(), sealed());
    }

    proptest! {
        #[test]
        fn no_change_of_a_sealed_key_opens(secret: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let master = master();
            let mut bytes = master.seal(&private(&secret), b"binding").as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(master.open(&Sealed::from_bytes(bytes), b"binding").is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes: Vec<u8>) {
            prop_assert!(master().open(&Sealed::from_bytes(bytes), b"").is_err());
        }

        #[test]
        fn different_keys_have_different_bindings(
            one in ("[a-c]{0,3}", "[a-c]{0,3}", prop::option::of(prop::collection::vec(0..3_u8, 0..3))),
            two in ("[a-c]{0,3}", "[a-c]{0,3}", prop::option::of(prop::collection::vec(0..3_u8, 0..3))),
        ) {
            let bytes = |(name, version, policy): &(String, String, Option<Vec<u8>>)| {
                let policy = policy.as_deref().map(|policy| (policy, false));
                Binding { name, version, kty: "RSA", exportable: true, policy }.bytes()
            };
            prop_assert_eq!(one == two, bytes(&one) == bytes(&two));
        }
    }
}
