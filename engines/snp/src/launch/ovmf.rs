//! What an OVMF image says about itself: the GUIDed table at its end and the SEV metadata.
//!
//! Source: edk2 `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm` and `X64/OvmfSevMetadata.asm`. The table ends 32 bytes
//! before the end of the image and is read backwards: each entry is data, u16 length of the whole entry, GUID.

use crate::bytes::{array, le16, le32};
use crate::launch::{MAX_FIRMWARE, PAGE_SIZE};

/// A GUID as it lies in memory.
pub(super) type Guid = [u8; 16];

/// A GUID from its text's five groups.
pub(super) const fn guid(first: u32, second: u16, third: u16, rest: [u8; 8]) -> Guid {
    let [a0, a1, a2, a3] = first.to_le_bytes();
    let [b0, b1] = second.to_le_bytes();
    let [c0, c1] = third.to_le_bytes();
    let [d0, d1, d2, d3, d4, d5, d6, d7] = rest;
    [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7]
}

const FOOTER: Guid = guid(0x96b582de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
const RESET_BLOCK: Guid = guid(0x00f771de, 0x1a7e, 0x4fcb, [0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e]);
const HASHES: Guid = guid(0x7255371f, 0x3a3b, 0x4b04, [0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54]);
const METADATA: Guid = guid(0xdc886566, 0x984a, 0x4798, [0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc]);

/// Bytes behind the table.
const TABLE_END: usize = 32;
/// Length and GUID.
const ENTRY_HEADER: usize = 18;
/// Signature, size, version, number of items.
const METADATA_HEADER: usize = 16;
/// Address, size, type.
const ITEM_SIZE: usize = 12;
/// Most bytes of one section.
const MAX_SECTION: u32 = 15 << 20;
/// Most bytes of all sections.
const MAX_SECTIONS: u64 = 64 << 20;

/// Why an image cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OvmfError {
    /// No whole number of pages, none, or too many.
    #[error("a firmware image has 1 to {} whole pages, not {len} bytes", MAX_FIRMWARE / PAGE_SIZE)]
    Size {
        /// Bytes of the image.
        len: usize,
    },
    /// The table's lengths lead out of it.
    #[error("the table at the end of the firmware image is damaged")]
    Table,
    /// The metadata's lengths lead out of the image, or its signature or version is another.
    #[error("the SEV metadata of the firmware image is damaged: {what}")]
    Metadata {
        /// What is wrong.
        what: &'static str,
    },
    /// A section of a type that this crate cannot measure.
    #[error("the SEV metadata of the firmware image has a section of the unknown type {kind:#x}")]
    UnknownSection {
        /// Its type.
        kind: u32,
    },
}

/// What a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// Memory that the firmware uses before it can accept any: zeros.
    SecMemory,
    /// The secrets page.
    Secrets,
    /// The CPUID page.
    Cpuid,
    /// Calling area of an SVSM: zeros.
    SvsmCaa,
    /// Hashes of a directly booted kernel.
    KernelHashes,
}

/// One item of the SEV metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Address.
    pub gpa: u32,
    /// Bytes; whole pages.
    pub size: u32,
    /// Purpose.
    pub kind: SectionKind,
}

impl Section {
    /// Number of pages.
    pub(super) fn pages(&self) -> usize {
        usize::try_from(self.size / 4096).unwrap_or_default()
    }
}

/// What was found in an image. An image without a table, or without metadata in it, has no sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ovmf {
    /// Metadata sections in file order.
    pub sections: Vec<Section>,
    /// Where every CPU but the first starts under SEV-ES and SEV-SNP.
    pub ap_reset: Option<u32>,
    /// Address of the kernel hashes.
    pub hashes_table_gpa: Option<u32>,
}

impl Ovmf {
    /// Reads an image.
    ///
    /// # Errors
    /// See [`OvmfError`].
    pub fn parse(image: &[u8]) -> Result<Self, OvmfError> {
        let len = image.len();
        if len == 0 || len > MAX_FIRMWARE || !len.is_multiple_of(PAGE_SIZE) {
            return Err(OvmfError::Size { len });
        }
        let mut found = Self::default();
        let mut rest = table(image)?;
        while let Some((guid, data, before)) = last_entry(rest)? {
            match guid {
                RESET_BLOCK => found.ap_reset = Some(le32(data, 0).ok_or(OvmfError::Table)?),
                HASHES => found.hashes_table_gpa = Some(le32(data, 0).ok_or(OvmfError::Table)?),
                METADATA => found.sections = sections(image, le32(data, 0).ok_or(OvmfError::Table)?)?,
                _ => {}
            }
            rest = before;
        }
        Ok(found)
    }

    /// Whether there is a section of this kind.
    pub fn has(&self, kind: SectionKind) -> bool {
        self.sections.iter().any(|section| section.kind == kind)
    }
}

/// The table's entries without its footer; empty when the image has no table.
fn table(image: &[u8]) -> Result<&[u8], OvmfError> {
    let end = image.len().saturating_sub(TABLE_END);
    let footer = end.saturating_sub(ENTRY_HEADER);
    if array(image, footer + 2) != Some(FOOTER) {
        return Ok(&[]);
    }
    let size = usize::from(le16(image, footer).ok_or(OvmfError::Table)?);
    let start = end.checked_sub(size).ok_or(OvmfError::Table)?;
    image.get(start..footer).ok_or(OvmfError::Table)
}

/// A GUID, its entry's data, and the table before the entry.
type Entry<'a> = (Guid, &'a [u8], &'a [u8]);

/// The last entry of a table; nothing when what is left is too short for one.
fn last_entry(table: &[u8]) -> Result<Option<Entry<'_>>, OvmfError> {
    let Some(header) = table.len().checked_sub(ENTRY_HEADER) else {
        return Ok(None);
    };
    let size = usize::from(le16(table, header).ok_or(OvmfError::Table)?);
    let guid = array(table, header + 2).ok_or(OvmfError::Table)?;
    let start = table.len().checked_sub(size).ok_or(OvmfError::Table)?;
    let data = table.get(start..header).ok_or(OvmfError::Table)?;
    let before = table.get(..start).ok_or(OvmfError::Table)?;
    Ok(Some((guid, data, before)))
}

fn sections(image: &[u8], offset_from_end: u32) -> Result<Vec<Section>, OvmfError> {
    let bad = |what| OvmfError::Metadata { what };
    let start = usize::try_from(offset_from_end).ok().and_then(|back| image.len().checked_sub(back));
    let block = start.and_then(|start| image.get(start..)).ok_or(bad("it lies outside the image"))?;
    if array(block, 0) != Some(*b"ASEV") {
        return Err(bad("its signature is not ASEV"));
    }
    if le32(block, 8) != Some(1) {
        return Err(bad("its version is not 1"));
    }
    let size = le32(block, 4).and_then(|size| usize::try_from(size).ok());
    let items = size.and_then(|size| block.get(METADATA_HEADER..size)).ok_or(bad("its size is wrong"))?;
    let count = le32(block, 12).and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let wanted = count.checked_mul(ITEM_SIZE).and_then(|len| items.get(..len));
    let items = wanted.ok_or(bad("it has fewer items than it says"))?;
    let sections = items.chunks_exact(ITEM_SIZE).map(section).collect::<Result<Vec<_>, _>>()?;
    let total = sections.iter().fold(0u64, |sum, section| sum + u64::from(section.size));
    if total > MAX_SECTIONS { Err(bad("its sections are larger than 64 MiB")) } else { Ok(sections) }
}

fn section(item: &[u8]) -> Result<Section, OvmfError> {
    let short = OvmfError::Metadata { what: "an item is cut off" };
    let (Some(gpa), Some(size), Some(kind)) = (le32(item, 0), le32(item, 4), le32(item, 8)) else {
        return Err(short);
    };
    let kind = match kind {
        1 => SectionKind::SecMemory,
        2 => SectionKind::Secrets,
        3 => SectionKind::Cpuid,
        4 => SectionKind::SvsmCaa,
        0x10 => SectionKind::KernelHashes,
        kind => return Err(OvmfError::UnknownSection { kind }),
    };
    if !gpa.is_multiple_of(4096) || size == 0 || !size.is_multiple_of(4096) || size > MAX_SECTION {
        return Err(OvmfError::Metadata { what: "a section is not made of whole pages" });
    }
    Ok(Section { gpa, size, kind })
}
