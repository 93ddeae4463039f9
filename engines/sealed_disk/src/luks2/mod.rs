//! LUKS2 headers ("LUKS2 On-Disk Format Specification"): written, checked and changed without cryptsetup.
//!
//! Only one shape is ever written, and the checker accepts little more (an allow-list, see [`check`]): two header copies
//! of 16 KiB, AES-256-XTS in keyslots and data, one data segment that starts 16 MiB behind the header's start. Stock
//! `cryptsetup` opens what is written here.
//!
//! ```text
//! 0x0000000  binary header 4096 | metadata (JSON) 12288      primary copy
//! 0x0004000  the same, own salt and checksum                 secondary copy
//! 0x0008000  keyslot areas of 258048 bytes each
//! 0x1000000  data segment
//! ```

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::crypto::{self, Hash};
use crate::secret::{Passphrase, VolumeKey};
use crate::xts::Xts;

mod anti_forensic;
mod binary;
mod check;
mod edit;
mod metadata;

pub use check::{CheckedHeader, HeaderRefusal, UnlockError, check};
pub use edit::{repair, replace_token};

/// From the header's start to the data segment.
pub const DATA_OFFSET: u64 = 16 << 20;
/// Both header copies together: what [`check`] and [`replace_token`] need.
pub const COPIES_BYTES: usize = 2 * COPY_BYTES;
/// Most keyslots that are written or accepted.
pub const MAX_KEYSLOTS: usize = 8;

const COPY_BYTES: usize = 0x4000;
const BINARY_BYTES: usize = 0x1000;
const JSON_BYTES: usize = COPY_BYTES - BINARY_BYTES;
const KEY_BYTES: usize = 64;
const STRIPES: usize = 4000;
/// Bytes of one keyslot's area: 64 in 4000 stripes, rounded up to 4096.
pub const AREA_BYTES: usize = 258_048;
const AREA_USED: usize = KEY_BYTES * STRIPES;
const AREA_SECTOR: usize = 512;
const ENCRYPTION: &str = "aes-xts-plain64";
/// The least that cryptsetup accepts: every passphrase written here is a random secret, stretching adds nothing.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(1000).expect("not zero");

/// Sector sizes of the data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SectorSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes: fewer XTS set-ups; the file system must have blocks of 4096 bytes.
    B4096,
}

impl SectorSize {
    /// In bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

/// A header to write.
pub struct Format<'a> {
    /// The volume's UUID.
    pub uuid: Uuid,
    /// The key of the data segment.
    pub volume_key: &'a VolumeKey,
    /// Passphrases of keyslots 0, 1 and so on. Each must be a random secret (PBKDF2 runs the minimum of rounds).
    pub keyslots: Vec<Passphrase>,
    /// Tokens 0, 1 and so on, each a JSON object as [`check`] accepts it.
    pub tokens: Vec<Value>,
    /// Sector size of the data segment.
    pub sector_size: SectorSize,
}

/// Why a header cannot be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// None, or more than [`MAX_KEYSLOTS`].
    #[error("a header needs 1 to {MAX_KEYSLOTS} keyslots, {0} were given")]
    KeyslotCount(usize),
    /// Tokens and all do not fit into 12 KiB of metadata.
    #[error("the header's metadata would take {0} bytes of {JSON_BYTES}")]
    MetadataTooLarge(usize),
    /// The volume key's halves are equal.
    #[error("the volume key cannot be used")]
    WeakKey(#[from] crate::xts::WeakKey),
    /// What would be written is not on the checker's allow-list (a token for example).
    #[error("the header would not pass its own check")]
    WouldBeRefused(#[from] HeaderRefusal),
}

impl Format<'_> {
    /// The header's bytes from its start to the end of the last keyslot area; zeros follow up to [`DATA_OFFSET`].
    pub fn write(&self) -> Result<Vec<u8>, FormatError> {
        let count = self.keyslots.len();
        if count == 0 || count > MAX_KEYSLOTS {
            return Err(FormatError::KeyslotCount(count));
        }
        Xts::new(self.volume_key.expose())?;
        let mut header = vec![0; COPIES_BYTES + count * AREA_BYTES];
        let salts: Vec<[u8; 32]> = self.keyslots.iter().map(|_| crypto::random()).collect();
        for (index, (passphrase, salt)) in self.keyslots.iter().zip(&salts).enumerate() {
            let start = COPIES_BYTES + index * AREA_BYTES;
            write_keyslot(&mut header[start..start + AREA_BYTES], self.volume_key, passphrase, salt);
        }
        let text = serde_json::to_string(&self.metadata(&salts)).expect("JSON values serialise");
        if text.len() >= JSON_BYTES {
            return Err(FormatError::MetadataTooLarge(text.len()));
        }
        binary::write_copies(&mut header, &self.uuid.to_string(), 1, &text);
        check(&header)?;
        Ok(header)
    }

    fn metadata(&self, salts: &[[u8; 32]]) -> Value {
        let keyslots: serde_json::Map<_, _> = salts
            .iter()
            .enumerate()
            .map(|(index, salt)| (index.to_string(), keyslot_json(index, salt)))
            .collect();
        let names: Vec<_> = keyslots.keys().cloned().collect();
        let tokens: serde_json::Map<_, _> =
            self.tokens.iter().enumerate().map(|(index, token)| (index.to_string(), token.clone())).collect();
        let digest_salt: [u8; 32] = crypto::random();
        let mut digest = [0; 32];
        crypto::pbkdf2(Hash::Sha256, self.volume_key.expose(), &digest_salt, ITERATIONS, &mut digest);
        json!({
            "keyslots": keyslots,
            "tokens": tokens,
            "segments": {"0": {
                "type": "crypt", "offset": DATA_OFFSET.to_string(), "size": "dynamic", "iv_tweak": "0",
                "encryption": ENCRYPTION, "sector_size": self.sector_size.bytes(),
            }},
            "digests": {"0": {
                "type": "pbkdf2", "keyslots": names, "segments": ["0"], "hash": "sha256",
                "iterations": ITERATIONS, "salt": STANDARD.encode(digest_salt), "digest": STANDARD.encode(digest),
            }},
            "config": {
                "json_size": JSON_BYTES.to_string(),
                "keyslots_size": (DATA_OFFSET - COPIES_BYTES as u64).to_string(),
            },
        })
    }
}

fn keyslot_json(index: usize, salt: &[u8; 32]) -> Value {
    json!({
        "type": "luks2", "key_size": KEY_BYTES,
        "af": {"type": "luks1", "stripes": STRIPES, "hash": "sha256"},
        "area": {
            "type": "raw", "offset": (COPIES_BYTES + index * AREA_BYTES).to_string(),
            "size": AREA_BYTES.to_string(), "encryption": ENCRYPTION, "key_size": KEY_BYTES,
        },
        "kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": ITERATIONS, "salt": STANDARD.encode(salt)},
    })
}

fn write_keyslot(area: &mut [u8], volume_key: &VolumeKey, passphrase: &Passphrase, salt: &[u8; 32]) {
    let material = &mut area[..AREA_USED];
    anti_forensic::split(volume_key.expose(), material);
    keyslot_cipher(Hash::Sha256, passphrase, salt, ITERATIONS).encrypt_in_place(material, 0, AREA_SECTOR);
}

fn keyslot_cipher(hash: Hash, passphrase: &Passphrase, salt: &[u8], iterations: NonZeroU32) -> Xts {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    crypto::pbkdf2(hash, passphrase.expose().as_bytes(), salt, iterations, key.as_mut_slice());
    Xts::new(&key).expect("PBKDF2 does not give equal halves")
}
