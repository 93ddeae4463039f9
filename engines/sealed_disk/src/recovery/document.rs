//! The document itself: JSON with the VM, the generation, the wrapped key, and the sealed rest.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::crypto::{self, NONCE_BYTES, TAG_BYTES};
use crate::secret::Secret;

const VERSION: u32 = 1;
const DOMAIN: &[u8] = b"casemate recovery document 1";
const FINGERPRINT_DOMAIN: &[u8] = b"casemate recovery fingerprint 1";
/// Header start, UUID, region key.
const FIXED_BYTES: usize = 8 + 16 + 32;

/// Why a document is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Not JSON of the known members.
    #[error("the recovery document is malformed")]
    Malformed(#[from] serde_json::Error),
    /// Of another form.
    #[error("the recovery document has version {0}, known is {VERSION}")]
    Version(u32),
    /// Other key, other VM, other generation or other bytes.
    #[error("the recovery document is not the one that this VM's paravisor sealed under this key")]
    NotAuthentic,
    /// Authentic, but too short.
    #[error("the recovery document's content is cut short")]
    CutShort,
}

/// What a document protects.
pub struct Contents {
    /// Where on the disk the LUKS2 header begins.
    pub header_start: u64,
    /// The volume.
    pub luks_uuid: Uuid,
    /// Key of the boot region.
    pub region_key: Secret<32>,
    /// The boot region's table.
    pub table: Vec<u8>,
}

/// A recovery document. All but `sealed` is in clear, and `vm_id` and `generation` are bound by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    version: u32,
    /// The VM.
    pub vm_id: Uuid,
    /// The guest state's generation at the time of writing.
    pub generation: u64,
    /// The document key, wrapped to the tenant; how is the caller's matter.
    #[serde(with = "standard_base64")]
    pub wrapped_key: Vec<u8>,
    /// AES-256-GCM: nonce, ciphertext, tag.
    #[serde(with = "standard_base64")]
    sealed: Vec<u8>,
}

impl Document {
    /// Seals a document under `key`.
    pub fn seal(
        vm_id: Uuid,
        generation: u64,
        key: &Secret<32>,
        wrapped_key: Vec<u8>,
        contents: &Contents,
    ) -> Self {
        let mut plain = Zeroizing::new(Vec::with_capacity(FIXED_BYTES + contents.table.len()));
        plain.extend(contents.header_start.to_le_bytes());
        plain.extend(contents.luks_uuid.as_bytes());
        plain.extend(contents.region_key.expose());
        plain.extend(&contents.table);
        let nonce: [u8; NONCE_BYTES] = crypto::random();
        let tag = crypto::gcm_seal(key, nonce, &associated(vm_id, generation), &mut plain);
        let sealed = [nonce.as_slice(), &plain, &tag].concat();
        Self { version: VERSION, vm_id, generation, wrapped_key, sealed }
    }

    /// As it is written.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain members have a JSON form")
    }

    /// Reads what is in clear; the host's word until [`Document::open`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document: Self = serde_json::from_slice(bytes)?;
        if document.version == VERSION { Ok(document) } else { Err(DocumentError::Version(document.version)) }
    }

    /// Checks and decrypts.
    pub fn open(&self, key: &Secret<32>) -> Result<Contents, DocumentError> {
        let (nonce, rest) = self.sealed.split_first_chunk().ok_or(DocumentError::NotAuthentic)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(DocumentError::NotAuthentic)?;
        let plain = crypto::gcm_open(key, *nonce, &associated(self.vm_id, self.generation), sealed, tag)
            .map_err(|_| DocumentError::NotAuthentic)?;
        let (fixed, table) = plain.split_at_checked(FIXED_BYTES).ok_or(DocumentError::CutShort)?;
        Ok(Contents {
            header_start: u64::from_le_bytes(fixed[..8].try_into().expect("eight bytes")),
            luks_uuid: Uuid::from_bytes(fixed[8..24].try_into().expect("sixteen bytes")),
            region_key: Secret::from_slice(&fixed[24..]).expect("32 bytes"),
            table: table.to_vec(),
        })
    }
}

/// What may be shown of a document key: who knows the fingerprint can tell this VM's key from one that somebody else made.
pub fn fingerprint(vm_id: Uuid, key: &Secret<32>) -> [u8; 32] {
    crypto::sha256(&[FINGERPRINT_DOMAIN, vm_id.as_bytes(), key.expose()])
}

fn associated(vm_id: Uuid, generation: u64) -> Vec<u8> {
    [DOMAIN, vm_id.as_bytes(), &generation.to_le_bytes()].concat()
}

/// With padding, as `base64 -d` of a shell reads it.
mod standard_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(input)?;
        STANDARD.decode(text).map_err(|_| D::Error::custom("not base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(key: &Secret<32>) -> Document {
        let contents = Contents {
            header_start: 1 << 20,
            luks_uuid: Uuid::from_u128(7),
            region_key: Secret::from_bytes([3; 32]),
            table: b"table".to_vec(),
        };
        Document::seal(Uuid::from_u128(1), 5, key, vec![1, 2], &contents)
    }

    #[test]
    fn a_document_comes_back_as_it_was_sealed() {
        let key = Secret::random();
        let read = Document::parse(&document(&key).to_bytes()).unwrap();
        assert_eq!(
            (read.vm_id, read.generation, read.wrapped_key.as_slice()),
            (Uuid::from_u128(1), 5, &[1, 2][..])
        );
        let contents = read.open(&key).unwrap();
        assert_eq!((contents.header_start, contents.luks_uuid), (1 << 20, Uuid::from_u128(7)));
        assert_eq!((contents.region_key.expose(), contents.table.as_slice()), (&[3; 32], &b"table"[..]));
    }

    #[test]
    fn attack_a_document_renamed_to_another_vm_or_generation_or_with_other_bytes() {
        let key = Secret::random();
        let changes: [fn(&mut Document); 5] = [
            |document| document.vm_id = Uuid::from_u128(2),
            |document| document.generation += 1,
            |document| document.sealed[20] ^= 1,
            |document| document.sealed.truncate(20),
            |document| document.sealed.clear(),
        ];
        for change in changes {
            let mut document = document(&key);
            change(&mut document);
            assert!(matches!(document.open(&key), Err(DocumentError::NotAuthentic)));
        }
        assert!(matches!(document(&key).open(&Secret::random()), Err(DocumentError::NotAuthentic)));
    }

    #[test]
    fn another_version_or_an_unknown_member_is_refused() {
        let text = String::from_utf8(document(&Secret::random()).to_bytes()).unwrap();
        let other = text.replacen("\"version\":1", "\"version\":2", 1);
        assert!(matches!(Document::parse(other.as_bytes()), Err(DocumentError::Version(2))));
        let more = text.replacen('{', "{\"more\":1,", 1);
        assert!(matches!(Document::parse(more.as_bytes()), Err(DocumentError::Malformed(_))));
        assert!(Document::parse(&text.as_bytes()[..40]).is_err());
    }

    #[test]
    fn the_fingerprint_is_of_key_and_vm() {
        let key = Secret::from_bytes([1; 32]);
        let one = fingerprint(Uuid::from_u128(1), &key);
        assert_eq!(one, fingerprint(Uuid::from_u128(1), &key));
        assert_ne!(one, fingerprint(Uuid::from_u128(2), &key));
        assert_ne!(one, fingerprint(Uuid::from_u128(1), &Secret::from_bytes([2; 32])));
    }
}
