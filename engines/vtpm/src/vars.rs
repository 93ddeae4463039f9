//! UEFI variables in OVMF's `VARS.fd`: a firmware volume that holds EDK2's authenticated variable store (EDK2,
//! `MdeModulePkg/Include/Guid/VariableFormat.h`). Read only.
//!
//! The fault-tolerant-write area behind the store is not replayed: a store that was cut off in the middle of a reclaim
//! is read as it stands.

use thiserror::Error;

use crate::bytes::{Cursor, size, slice, utf16le};
use crate::guid::{GLOBAL, Guid, IMAGE_SECURITY, LOADER, SECURE_BOOT_ENABLE, SHIM};

const FV_SYSTEM_NV: Guid = Guid::new(0xfff1_2b8d, 0x7696, 0x4c8b, 0xa985, 0x2747_075b_4f50);
const AUTHENTICATED_STORE: Guid = Guid::new(0xaaf3_2c78, 0x947b, 0x439a, 0xa180, 0x2e14_4ec3_7792);
const HEADER: usize = 60;
const STORE_HEADER: usize = 28;
const STATE_ADDED: u8 = 0x3F;
const STATE_IN_DELETED_TRANSITION: u8 = 0x3E;

/// Why a variable store is not accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum VarsError {
    /// The firmware volume around the store is wrong.
    #[error("not a firmware volume with variables: {0}")]
    Volume(&'static str),
    /// The variable store is wrong.
    #[error("the variable store is damaged: {0}")]
    Store(&'static str),
}

/// A variable in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Vendor GUID.
    pub guid: Guid,
    /// Name.
    pub name: String,
    /// EFI attributes.
    pub attributes: u32,
    /// The content, without a time stamp.
    pub data: Vec<u8>,
}

/// The variables of a `VARS.fd`.
#[derive(Clone, Debug, Default)]
pub struct VarStore {
    variables: Vec<Variable>,
}

impl VarStore {
    /// Parses a flash image that starts with the variable firmware volume.
    ///
    /// # Errors
    /// [`VarsError`]. A store that ends in the middle of a variable is damaged; nothing is guessed.
    pub fn parse(flash: &[u8]) -> Result<Self, VarsError> {
        let mut store = Cursor::new(store_of(flash)?);
        let mut variables: Vec<(u8, Variable)> = Vec::new();
        loop {
            let rest = store.rest();
            if !rest.starts_with(&[0xAA, 0x55]) {
                break;
            }
            let (state, variable, used) = variable(rest)?;
            store.take(used.next_multiple_of(4).min(rest.len()));
            if matches!(state, STATE_ADDED | STATE_IN_DELETED_TRANSITION) {
                variables.push((state, variable));
            }
        }
        let free = store.rest();
        if !free.iter().take(2).all(|byte| *byte == 0xFF) {
            return Err(VarsError::Store("no variable and no free space where one is expected"));
        }
        Ok(Self { variables: current(variables) })
    }

    /// A variable by vendor and name.
    pub fn get(&self, guid: &Guid, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| variable.guid == *guid && variable.name == name)
    }

    /// All variables, in the store's order.
    pub fn iter(&self) -> impl Iterator<Item = &Variable> {
        self.variables.iter()
    }

    /// What the firmware will take for its Secure Boot state at the next start.
    pub fn secure_boot_state(&self) -> SecureBootState {
        let content = |guid, name| self.get(guid, name).map(|variable| variable.data.clone());
        let pk = content(&GLOBAL, "PK").unwrap_or_default();
        let switched_off = content(&SECURE_BOOT_ENABLE, "SecureBootEnable").is_some_and(|data| data == [0]);
        SecureBootState {
            secure_boot: !pk.is_empty() && !switched_off,
            pk,
            kek: content(&GLOBAL, "KEK").unwrap_or_default(),
            db: content(&IMAGE_SECURITY, "db").unwrap_or_default(),
            dbx: content(&IMAGE_SECURITY, "dbx").unwrap_or_default(),
            dbt: content(&IMAGE_SECURITY, "dbt").filter(|data| !data.is_empty()),
            dbr: content(&IMAGE_SECURITY, "dbr").filter(|data| !data.is_empty()),
        }
    }

    /// The variables by which loaders choose what to start.
    pub fn loader_vars(&self) -> LoaderVars {
        let text = |name| self.get(&LOADER, name).and_then(|variable| text16(&variable.data));
        let shim_variables = self.variables.iter().filter(|variable| variable.guid == SHIM);
        LoaderVars {
            entry_one_shot: text("LoaderEntryOneShot"),
            entry_preferred: text("LoaderEntryPreferred"),
            entry_default: text("LoaderEntryDefault"),
            entry_last_booted: text("LoaderEntryLastBooted"),
            sbat_policy: self.get(&SHIM, "SbatPolicy").and_then(|variable| variable.data.first().copied()),
            mok_variables: shim_variables
                .map(|variable| variable.name.clone())
                .filter(|name| name.starts_with("Mok"))
                .collect(),
        }
    }

    /// shim's `SbatLevel`, when it is stored already.
    pub fn sbat_level(&self) -> Option<Vec<u8>> {
        self.get(&SHIM, "SbatLevel").map(|variable| variable.data.clone())
    }
}

/// The Secure Boot variables as the firmware measures them into PCR 7. Absent ones are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecureBootState {
    /// Whether images are verified.
    pub secure_boot: bool,
    /// The platform key.
    pub pk: Vec<u8>,
    /// Key-exchange keys.
    pub kek: Vec<u8>,
    /// The signature database.
    pub db: Vec<u8>,
    /// The forbidden-signature database.
    pub dbx: Vec<u8>,
    /// The time-stamp database; measured only if present.
    pub dbt: Option<Vec<u8>>,
    /// The recovery database; measured only if present.
    pub dbr: Option<Vec<u8>>,
}

/// The variables of boot loaders that change what is started or measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoaderVars {
    /// `LoaderEntryOneShot`: the entry of the next boot only.
    pub entry_one_shot: Option<String>,
    /// `LoaderEntryPreferred` of newer systemd-boot.
    pub entry_preferred: Option<String>,
    /// `LoaderEntryDefault`.
    pub entry_default: Option<String>,
    /// `LoaderEntryLastBooted`, meant by `@saved`.
    pub entry_last_booted: Option<String>,
    /// shim's `SbatPolicy`: 1 latest, 2 automatic, 3 reset.
    pub sbat_policy: Option<u8>,
    /// Names of shim's stored variables `Mok...` (own keys, pending requests, switched-off verification).
    pub mok_variables: Vec<String>,
}

fn text16(data: &[u8]) -> Option<String> {
    let text = utf16le(data)?;
    Some(text.trim_end_matches('\0').to_owned())
}

/// The variable store's bytes behind its header.
fn store_of(flash: &[u8]) -> Result<&[u8], VarsError> {
    let mut header = Cursor::new(flash);
    let fields = (|| {
        header.take(16)?;
        let guid = Guid(header.array()?);
        let length = header.le64()?;
        let signature: [u8; 4] = header.array()?;
        header.le32()?;
        Some((guid, length, signature, header.le16()?))
    })();
    let (guid, length, signature, header_length) = fields.ok_or(VarsError::Volume("truncated header"))?;
    if guid != FV_SYSTEM_NV || signature != *b"_FVH" {
        return Err(VarsError::Volume("file-system guid or signature"));
    }
    let header_length = usize::from(header_length);
    check_volume_header(flash.get(..header_length).ok_or(VarsError::Volume("header length"))?)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= flash.len());
    let volume = flash.get(header_length..length.ok_or(VarsError::Volume("length"))?);
    let volume = volume.ok_or(VarsError::Volume("header length"))?;
    let mut store = Cursor::new(volume);
    let fields = (|| Some((Guid(store.array()?), store.le32()?, store.u8()?, store.u8()?)))();
    let (guid, store_size, format, state) = fields.ok_or(VarsError::Store("truncated header"))?;
    if guid != AUTHENTICATED_STORE || format != 0x5A || state != 0xFE {
        return Err(VarsError::Store("not a healthy authenticated variable store"));
    }
    volume.get(STORE_HEADER..size(store_size)).ok_or(VarsError::Store("size"))
}

/// The 16-bit words of a firmware volume's header sum up to zero.
fn check_volume_header(header: &[u8]) -> Result<(), VarsError> {
    let (words, odd) = header.as_chunks::<2>();
    let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(u16::from_le_bytes(*word)));
    if sum != 0 || !odd.is_empty() {
        return Err(VarsError::Volume("header checksum"));
    }
    Ok(())
}

/// One variable: its state, itself, and the bytes that it takes.
fn variable(bytes: &[u8]) -> Result<(u8, Variable, usize), VarsError> {
    let mut header = Cursor::new(bytes);
    let parsed = (|| {
        header.le16()?;
        let state = header.u8()?;
        header.u8()?;
        let attributes = header.le32()?;
        header.take(8 + 16 + 4)?;
        let (name_size, data_size) = (size(header.le32()?), size(header.le32()?));
        let guid = Guid(header.array()?);
        let used = HEADER.checked_add(name_size)?.checked_add(data_size)?;
        let name = utf16le(slice(bytes, HEADER, name_size)?)?.trim_end_matches('\0').to_owned();
        let data = slice(bytes, HEADER + name_size, data_size)?.to_vec();
        Some((state, Variable { guid, name, attributes, data }, used))
    })();
    parsed.ok_or(VarsError::Store("a variable exceeds the store"))
}

/// Of each variable its valid copy; a copy that is about to be deleted counts only where no other is valid.
fn current(found: Vec<(u8, Variable)>) -> Vec<Variable> {
    let mut result: Vec<(u8, Variable)> = Vec::new();
    for (state, variable) in found {
        let same =
            result.iter_mut().find(|(_, other)| other.guid == variable.guid && other.name == variable.name);
        match same {
            None => result.push((state, variable)),
            Some(other) if other.0 != STATE_ADDED => *other = (state, variable),
            Some(_) => {}
        }
    }
    result.into_iter().map(|(_, variable)| variable).collect()
}
