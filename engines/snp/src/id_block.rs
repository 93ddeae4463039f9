//! The ID block and its authentication (ABI section 8.18 "SNP_LAUNCH_FINISH", tables "ID Block" and "ID Authentication
//! Information Structure"): a guest owner's signed expectation of a launch.

use crate::bytes::{array, field, put};
use crate::ecdsa::{self, Point};
use crate::launch::LaunchDigest;
use crate::launch::sha384;
use crate::policy::GuestPolicy;

/// Bytes of the ID block.
pub const ID_BLOCK_SIZE: usize = 96;
/// Bytes of the ID authentication information.
pub const ID_AUTH_SIZE: usize = 4096;
/// Bytes of a public key: curve, Qx, Qy, reserved.
const PUBLIC_KEY_SIZE: usize = 0x404;
/// CURVE of P-384.
const P384: u32 = 2;
/// ID_KEY_ALGO and AUTHOR_KEY_ALGO of ECDSA P-384 with SHA-384.
const ALGORITHM: u32 = 1;

/// What the guest's owner expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdBlock {
    /// LD.
    pub launch_digest: LaunchDigest,
    /// FAMILY_ID.
    pub family_id: [u8; 16],
    /// IMAGE_ID.
    pub image_id: [u8; 16],
    /// VERSION; 1.
    pub version: u32,
    /// GUEST_SVN.
    pub guest_svn: u32,
    /// POLICY.
    pub policy: GuestPolicy,
}

impl IdBlock {
    /// Reads the 96 bytes.
    pub fn parse(raw: &[u8; ID_BLOCK_SIZE]) -> Self {
        Self {
            launch_digest: LaunchDigest(field::<0x00, 48, _>(raw)),
            family_id: field::<0x30, 16, _>(raw),
            image_id: field::<0x40, 16, _>(raw),
            version: u32::from_le_bytes(field::<0x50, 4, _>(raw)),
            guest_svn: u32::from_le_bytes(field::<0x54, 4, _>(raw)),
            policy: GuestPolicy(u64::from_le_bytes(field::<0x58, 8, _>(raw))),
        }
    }

    /// Writes the 96 bytes.
    pub fn encode(&self) -> [u8; ID_BLOCK_SIZE] {
        let mut raw = [0; ID_BLOCK_SIZE];
        put::<0x00, 48, _>(&mut raw, self.launch_digest.0);
        put::<0x30, 16, _>(&mut raw, self.family_id);
        put::<0x40, 16, _>(&mut raw, self.image_id);
        put::<0x50, 4, _>(&mut raw, self.version.to_le_bytes());
        put::<0x54, 4, _>(&mut raw, self.guest_svn.to_le_bytes());
        put::<0x58, 8, _>(&mut raw, self.policy.0.to_le_bytes());
        raw
    }
}

/// Why an ID block is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdBlockError {
    /// Another version.
    #[error("ID block version {0} is not 1")]
    Version(u32),
    /// Another algorithm.
    #[error("{0} key algorithm is not ECDSA P-384 with SHA-384")]
    Algorithm(&'static str),
    /// Not a key on P-384.
    #[error("the {0} key is not a P-384 key")]
    Key(&'static str),
    /// A signature is wrong.
    #[error("the signature of the {0} is wrong")]
    Signature(&'static str),
}

/// Digests of the keys that vouch for an ID block, as a report shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdKeys {
    /// SHA-384 of the ID public key.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the author public key, when there is one.
    pub author_key_digest: Option<[u8; 48]>,
}

/// Checks the signatures: the ID key's over the block and, when `author_key` is set, the author key's over the ID key.
///
/// # Errors
/// See [`IdBlockError`].
pub fn authenticate(
    block: &[u8; ID_BLOCK_SIZE],
    auth: &[u8; ID_AUTH_SIZE],
    author_key: bool,
) -> Result<IdKeys, IdBlockError> {
    let version = IdBlock::parse(block).version;
    if version != 1 {
        return Err(IdBlockError::Version(version));
    }
    let id_key: [u8; PUBLIC_KEY_SIZE] = field::<0x240, PUBLIC_KEY_SIZE, _>(auth);
    check(block, "ID block", field::<0x000, 4, _>(auth), ecdsa::signature(auth, 0x040), &id_key, "ID")?;
    let id_key_digest = sha384(&id_key);
    if !author_key {
        return Ok(IdKeys { id_key_digest, author_key_digest: None });
    }
    let author: [u8; PUBLIC_KEY_SIZE] = field::<0x880, PUBLIC_KEY_SIZE, _>(auth);
    check(&id_key, "ID key", field::<0x004, 4, _>(auth), ecdsa::signature(auth, 0x680), &author, "author")?;
    Ok(IdKeys { id_key_digest, author_key_digest: Some(sha384(&author)) })
}

fn check(
    message: &[u8],
    what: &'static str,
    algorithm: [u8; 4],
    signature: Option<[u8; 96]>,
    key: &[u8; PUBLIC_KEY_SIZE],
    whose: &'static str,
) -> Result<(), IdBlockError> {
    if u32::from_le_bytes(algorithm) != ALGORITHM {
        return Err(IdBlockError::Algorithm(whose));
    }
    let key = public_key(key).and_then(|point| ecdsa::key(&point)).ok_or(IdBlockError::Key(whose))?;
    match signature {
        Some(signature) if ecdsa::verify(&key, message, &signature) => Ok(()),
        _ => Err(IdBlockError::Signature(what)),
    }
}

fn public_key(key: &[u8; PUBLIC_KEY_SIZE]) -> Option<Point> {
    let x = ecdsa::scalar(&array(key, 4)?)?;
    let y = ecdsa::scalar(&array(key, 76)?)?;
    let mut point = [0; 97];
    point.iter_mut().zip([4].into_iter().chain(x).chain(y)).for_each(|(to, from)| *to = from);
    (u32::from_le_bytes(array(key, 0)?) == P384).then_some(point)
}
