//! The strict checker: an allow-list for everything in a header that decides how data is encrypted or opened.
//!
//! A LUKS2 header is not authenticated by the format. Readers that trust it can be made to open a volume with a null
//! cipher (CVE-2025-59054, CVE-2025-58356). Nothing is accepted here because it is not known to be bad; it is accepted
//! because it stands below.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::binary::{BinaryHeader, Copy};
use super::metadata::{Config, Digest, Kdf, Keyslot, Metadata, RecoveryToken, Segment, TpmToken};
use super::{
    AREA_BYTES, AREA_SECTOR, AREA_USED, COPIES_BYTES, DATA_OFFSET, ENCRYPTION, JSON_BYTES, KEY_BYTES,
    MAX_KEYSLOTS, STRIPES, SectorSize, anti_forensic, keyslot_cipher,
};
use crate::crypto::{self, Hash};
use crate::secret::{Passphrase, VolumeKey};

/// Flags that only change scheduling or discards.
const FLAGS: [&str; 5] =
    ["allow-discards", "same-cpu-crypt", "submit-from-crypt-cpus", "no-read-workqueue", "no-write-workqueue"];
const MAX_ITERATIONS: u32 = 100_000_000;
/// cryptsetup's own limit, in KiB.
const MAX_ARGON2_MEMORY: u32 = 4 << 20;

/// Why a header is refused. The text names the member of the header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderRefusal {
    /// Fewer bytes than two header copies, or than a keyslot needs.
    #[error("the LUKS2 header is cut short: {bytes} bytes")]
    TooShort {
        /// How many there are.
        bytes: usize,
    },
    /// No LUKS2 magic.
    #[error("the {copy} LUKS2 header has no LUKS2 magic")]
    NotLuks2 {
        /// Which copy.
        copy: Copy,
    },
    /// The copy's checksum does not match its bytes.
    #[error("the {copy} LUKS2 header's checksum does not match its bytes")]
    Checksum {
        /// Which copy.
        copy: Copy,
    },
    /// Both copies are valid, but say different things.
    #[error("the two LUKS2 header copies differ in {what}")]
    CopiesDiffer {
        /// In what.
        what: &'static str,
    },
    /// The metadata is not JSON of the known members.
    #[error("the LUKS2 metadata is not of the allowed form: {what}")]
    Metadata {
        /// What the parser found.
        what: String,
    },
    /// A value that is not on the allow-list.
    #[error("LUKS2 {place} is {found}, allowed is {allowed}")]
    NotAllowed {
        /// The member.
        place: String,
        /// Its value.
        found: String,
        /// What it may be.
        allowed: String,
    },
}

/// Why a checked header does not give its volume key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    /// No keyslot opens with this passphrase.
    #[error("no keyslot of the LUKS2 header opens with this passphrase")]
    NoKeyslot,
    /// The given bytes do not hold the keyslot areas.
    #[error("the LUKS2 header's keyslot areas are cut off")]
    TooShort,
}

/// A header that passed [`check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedHeader {
    /// The volume's UUID.
    pub uuid: Uuid,
    /// Sequence number of the header.
    pub seqid: u64,
    /// Sector size of the data segment.
    pub sector_size: SectorSize,
    /// The tokens with their numbers.
    pub tokens: Vec<(u32, Value)>,
    keyslots: Vec<CheckedKeyslot>,
    digest: CheckedDigest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct CheckedKeyslot {
    number: u32,
    offset: usize,
    /// None for Argon2 keyslots, which only the guest can have added.
    pbkdf2: Option<Pbkdf2>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pbkdf2 {
    hash: Hash,
    iterations: NonZeroU32,
    salt: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct CheckedDigest {
    kdf: Pbkdf2,
    digest: Vec<u8>,
}

impl CheckedHeader {
    /// Numbers of the keyslots, ascending.
    pub fn keyslots(&self) -> Vec<u32> {
        self.keyslots.iter().map(|slot| slot.number).collect()
    }

    /// The systemd-tpm2 token, if there is one.
    pub fn tpm2_token(&self) -> Option<&Value> {
        self.tokens.iter().map(|(_, token)| token).find(|token| token["type"] == TPM2)
    }

    /// Tries the passphrase on every PBKDF2 keyslot; `header` are the bytes that were checked, areas included.
    pub fn unlock(&self, header: &[u8], passphrase: &Passphrase) -> Result<VolumeKey, UnlockError> {
        for slot in &self.keyslots {
            let area = header.get(slot.offset..slot.offset + AREA_USED).ok_or(UnlockError::TooShort)?;
            let Some(kdf) = &slot.pbkdf2 else { continue };
            let mut material = zeroize::Zeroizing::new(area.to_vec());
            keyslot_cipher(kdf.hash, passphrase, &kdf.salt, kdf.iterations).decrypt_in_place(
                &mut material,
                0,
                AREA_SECTOR,
            );
            let key = anti_forensic::merge(&material);
            if self.is_key(key.as_slice()) {
                return Ok(VolumeKey::from_bytes(*key));
            }
        }
        Err(UnlockError::NoKeyslot)
    }

    /// Whether this is the volume key, by the header's digest.
    pub fn is_key(&self, key: &[u8]) -> bool {
        let Pbkdf2 { hash, iterations, salt } = &self.digest.kdf;
        let mut digest = vec![0; self.digest.digest.len()];
        crypto::pbkdf2(*hash, key, salt, *iterations, &mut digest);
        digest == self.digest.digest
    }
}

const TPM2: &str = "systemd-tpm2";

/// Checks both copies (the first [`COPIES_BYTES`] bytes) against the allow-list.
pub fn check(header: &[u8]) -> Result<CheckedHeader, HeaderRefusal> {
    let primary = BinaryHeader::parse(header, Copy::Primary)?;
    let secondary = BinaryHeader::parse(header, Copy::Secondary)?;
    if primary.seqid != secondary.seqid {
        return Err(HeaderRefusal::CopiesDiffer { what: "their sequence number" });
    }
    if primary.uuid != secondary.uuid {
        return Err(HeaderRefusal::CopiesDiffer { what: "their UUID" });
    }
    if primary.json != secondary.json {
        return Err(HeaderRefusal::CopiesDiffer { what: "their metadata" });
    }
    check_copy(&primary)
}

/// Checks one copy's content.
pub(super) fn check_copy(copy: &BinaryHeader<'_>) -> Result<CheckedHeader, HeaderRefusal> {
    let uuid = Uuid::parse_str(copy.uuid).map_err(|_| not_allowed("uuid", copy.uuid, "a UUID"))?;
    let metadata: Metadata = serde_json::from_str(copy.json)
        .map_err(|error| HeaderRefusal::Metadata { what: error.to_string() })?;
    check_config(&metadata.config)?;
    let keyslots = check_keyslots(&metadata)?;
    let sector_size = check_segments(&metadata)?;
    let digest = check_digests(&metadata)?;
    let tokens = check_tokens(&metadata)?;
    Ok(CheckedHeader { uuid, seqid: copy.seqid, sector_size, tokens, keyslots, digest })
}

fn not_allowed(place: impl Into<String>, found: impl ToString, allowed: impl ToString) -> HeaderRefusal {
    HeaderRefusal::NotAllowed { place: place.into(), found: found.to_string(), allowed: allowed.to_string() }
}

fn only<T: PartialEq + ToString>(
    place: &str,
    member: &str,
    found: T,
    allowed: T,
) -> Result<(), HeaderRefusal> {
    if found == allowed { Ok(()) } else { Err(not_allowed(format!("{place}: {member}"), found, allowed)) }
}

fn check_config(config: &Config) -> Result<(), HeaderRefusal> {
    only("config", "json_size", config.json_size.as_str(), &JSON_BYTES.to_string())?;
    only(
        "config",
        "keyslots_size",
        config.keyslots_size.as_str(),
        &(DATA_OFFSET - COPIES_BYTES as u64).to_string(),
    )?;
    match config.flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
        Some(flag) => Err(not_allowed("config: flags", flag, FLAGS.join(", "))),
        None => Ok(()),
    }
}

fn check_keyslots(metadata: &Metadata) -> Result<Vec<CheckedKeyslot>, HeaderRefusal> {
    let count = metadata.keyslots.len();
    if count == 0 || count > MAX_KEYSLOTS {
        return Err(not_allowed("keyslots", format!("{count} keyslots"), format!("1 to {MAX_KEYSLOTS}")));
    }
    let mut slots = Vec::with_capacity(count);
    for (name, slot) in &metadata.keyslots {
        slots.push(check_keyslot(number(name, "keyslot")?, slot)?);
    }
    slots.sort_by_key(|slot| slot.offset);
    if let Some(pair) = slots.windows(2).find(|pair| pair[0].offset + AREA_BYTES > pair[1].offset) {
        let place = format!("keyslot {}: area offset", pair[1].number);
        return Err(not_allowed(place, pair[1].offset, "an area that overlaps no other"));
    }
    slots.sort_by_key(|slot| slot.number);
    Ok(slots)
}

fn check_keyslot(number: u32, slot: &Keyslot) -> Result<CheckedKeyslot, HeaderRefusal> {
    let place = format!("keyslot {number}");
    only(&place, "type", slot.r#type.as_str(), "luks2")?;
    only(&place, "key_size", slot.key_size, KEY_BYTES as u64)?;
    only(&place, "af type", slot.af.r#type.as_str(), "luks1")?;
    only(&place, "af stripes", slot.af.stripes, STRIPES as u64)?;
    only(&place, "af hash", slot.af.hash.as_str(), "sha256")?;
    only(&place, "area type", slot.area.r#type.as_str(), "raw")?;
    only(&place, "area encryption", slot.area.encryption.as_str(), ENCRYPTION)?;
    only(&place, "area key_size", slot.area.key_size, KEY_BYTES as u64)?;
    only(&place, "area size", slot.area.size.as_str(), &AREA_BYTES.to_string())?;
    if slot.priority.is_some_and(|priority| priority > 2) {
        return Err(not_allowed(
            format!("{place}: priority"),
            slot.priority.unwrap_or_default(),
            "0, 1 or 2",
        ));
    }
    let last = usize::try_from(DATA_OFFSET).expect("16 MiB") - AREA_BYTES;
    let offset = canonical(&slot.area.offset)
        .filter(|&offset| (COPIES_BYTES..=last).contains(&offset) && offset.is_multiple_of(4096))
        .ok_or_else(|| {
            not_allowed(
                format!("{place}: area offset"),
                &slot.area.offset,
                format!("{COPIES_BYTES} to {last}"),
            )
        })?;
    Ok(CheckedKeyslot { number, offset, pbkdf2: check_kdf(&place, &slot.kdf)? })
}

fn check_kdf(place: &str, kdf: &Kdf) -> Result<Option<Pbkdf2>, HeaderRefusal> {
    match kdf {
        Kdf::Pbkdf2 { hash, iterations, salt } => check_pbkdf2(place, hash, *iterations, salt).map(Some),
        Kdf::Argon2i { time, memory, cpus, salt } | Kdf::Argon2id { time, memory, cpus, salt } => {
            bytes(place, "kdf salt", salt, 16..=64)?;
            if *time == 0 || *cpus == 0 || *cpus > 4 || *memory == 0 || *memory > MAX_ARGON2_MEMORY {
                let found = format!("time {time}, memory {memory} KiB, cpus {cpus}");
                return Err(not_allowed(format!("{place}: kdf"), found, "cryptsetup's own limits"));
            }
            Ok(None)
        }
    }
}

fn check_pbkdf2(place: &str, hash: &str, iterations: u32, salt: &str) -> Result<Pbkdf2, HeaderRefusal> {
    let hash = match hash {
        "sha256" => Hash::Sha256,
        "sha512" => Hash::Sha512,
        other => return Err(not_allowed(format!("{place}: hash"), other, "sha256, sha512")),
    };
    let iterations = NonZeroU32::new(iterations)
        .filter(|count| (1000..=MAX_ITERATIONS).contains(&count.get()))
        .ok_or_else(|| {
            not_allowed(format!("{place}: iterations"), iterations, format!("1000 to {MAX_ITERATIONS}"))
        })?;
    Ok(Pbkdf2 { hash, iterations, salt: bytes(place, "salt", salt, 16..=64)? })
}

fn check_segments(metadata: &Metadata) -> Result<SectorSize, HeaderRefusal> {
    let segment: &Segment = single(&metadata.segments, "segments")?;
    only("segment 0", "type", segment.r#type.as_str(), "crypt")?;
    only("segment 0", "encryption", segment.encryption.as_str(), ENCRYPTION)?;
    only("segment 0", "offset", segment.offset.as_str(), &DATA_OFFSET.to_string())?;
    only("segment 0", "size", segment.size.as_str(), "dynamic")?;
    only("segment 0", "iv_tweak", segment.iv_tweak.as_str(), "0")?;
    match segment.sector_size {
        512 => Ok(SectorSize::B512),
        4096 => Ok(SectorSize::B4096),
        other => Err(not_allowed("segment 0: sector_size", other, "512, 4096")),
    }
}

fn check_digests(metadata: &Metadata) -> Result<CheckedDigest, HeaderRefusal> {
    let digest: &Digest = single(&metadata.digests, "digests")?;
    only("digest 0", "type", digest.r#type.as_str(), "pbkdf2")?;
    only("digest 0", "segments", digest.segments.join(",").as_str(), "0")?;
    let named: BTreeSet<&String> = digest.keyslots.iter().collect();
    if named.len() != digest.keyslots.len() || !named.iter().copied().eq(metadata.keyslots.keys()) {
        let all = metadata.keyslots.keys().map(String::as_str).collect::<Vec<_>>().join(",");
        return Err(not_allowed("digest 0: keyslots", digest.keyslots.join(","), all));
    }
    let kdf = check_pbkdf2("digest 0", &digest.hash, digest.iterations, &digest.salt)?;
    Ok(CheckedDigest { kdf, digest: bytes("digest 0", "digest", &digest.digest, 32..=64)? })
}

fn check_tokens(metadata: &Metadata) -> Result<Vec<(u32, Value)>, HeaderRefusal> {
    let mut tokens = Vec::new();
    let mut sealed = 0;
    for (name, token) in &metadata.tokens {
        let place = format!("token {name}");
        let keyslots = match token["type"].as_str() {
            Some(TPM2) => {
                sealed += 1;
                check_tpm_token(&place, token)?
            }
            Some("systemd-recovery") => typed::<RecoveryToken>(&place, token)?.keyslots,
            other => {
                let found = other.unwrap_or("missing");
                return Err(not_allowed(format!("{place}: type"), found, "systemd-tpm2, systemd-recovery"));
            }
        };
        if let Some(slot) = keyslots.iter().find(|slot| !metadata.keyslots.contains_key(*slot)) {
            return Err(not_allowed(format!("{place}: keyslots"), slot, "a keyslot of this header"));
        }
        tokens.push((number(name, "token")?, token.clone()));
    }
    if sealed > 1 {
        return Err(not_allowed("tokens", format!("{sealed} of type systemd-tpm2"), "one"));
    }
    tokens.sort_by_key(|(number, _)| *number);
    Ok(tokens)
}

fn check_tpm_token(place: &str, token: &Value) -> Result<Vec<String>, HeaderRefusal> {
    let token: TpmToken = typed(place, token)?;
    only(place, "tpm2-pcr-bank", token.pcr_bank.as_str(), "sha256")?;
    only(place, "tpm2-primary-alg", token.primary_alg.as_str(), "ecc")?;
    only(place, "tpm2-pin", token.pin, false)?;
    only(place, "tpm2_pcrlock", token.pcrlock, false)?;
    only(place, "number of keyslots", token.keyslots.len(), 1)?;
    let ascending = token.pcrs.windows(2).all(|pair| pair[0] < pair[1]);
    if token.pcrs.is_empty() || !ascending || token.pcrs.iter().any(|&pcr| pcr > 23) {
        return Err(not_allowed(
            format!("{place}: tpm2-pcrs"),
            format!("{:?}", token.pcrs),
            "PCRs 0 to 23, ascending",
        ));
    }
    bytes(place, "tpm2-blob", &token.blob, 1..=1024)?;
    bytes(place, "tpm2_srk", &token.srk, 1..=1024)?;
    match hex::decode(&token.policy_hash) {
        Ok(hash) if hash.len() == 32 => Ok(token.keyslots),
        _ => Err(not_allowed(format!("{place}: tpm2-policy-hash"), &token.policy_hash, "32 bytes in hex")),
    }
}

fn typed<T: DeserializeOwned>(place: &str, token: &Value) -> Result<T, HeaderRefusal> {
    T::deserialize(token).map_err(|error| HeaderRefusal::Metadata { what: format!("{place}: {error}") })
}

/// The only member, which must be called "0".
fn single<'a, T>(
    map: &'a std::collections::BTreeMap<String, T>,
    place: &str,
) -> Result<&'a T, HeaderRefusal> {
    let names = map.keys().map(String::as_str).collect::<Vec<_>>().join(",");
    map.get("0").filter(|_| map.len() == 1).ok_or_else(|| not_allowed(place, names, "0 alone"))
}

/// A decimal number without sign, leading zeros or blanks.
fn canonical(text: &str) -> Option<usize> {
    text.parse::<usize>().ok().filter(|number| number.to_string() == text)
}

fn number(name: &str, what: &str) -> Result<u32, HeaderRefusal> {
    canonical(name)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|&number| number < 32)
        .ok_or_else(|| not_allowed(format!("{what} number"), name, "0 to 31"))
}

fn bytes(
    place: &str,
    member: &str,
    text: &str,
    allowed: std::ops::RangeInclusive<usize>,
) -> Result<Vec<u8>, HeaderRefusal> {
    STANDARD.decode(text).ok().filter(|bytes| allowed.contains(&bytes.len())).ok_or_else(|| {
        not_allowed(
            format!("{place}: {member}"),
            text,
            format!("{allowed:?} bytes in base64").replace("..=", " to "),
        )
    })
}
