//! The GUID partition table of a disk with 512-byte sectors (UEFI specification, section 5.3). Read only; the primary
//! table must be whole, as nothing here falls back to the other copy.

use std::io::{Read, Seek, SeekFrom};

use thiserror::Error;

use crate::bytes::{Cursor, le16_at, le32_at, size, utf16le};
use crate::guid::Guid;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Partition type: EFI system partition.
pub const TYPE_ESP: Guid = Guid::new(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b, 0x00a0_c93e_c93b);
/// Partition type: extended boot loader partition (Boot Loader Specification).
pub const TYPE_XBOOTLDR: Guid = Guid::new(0xbc13_c2ff, 0x59e6, 0x4262, 0xa352, 0xb275_fd6f_7172);

/// Why a partition table is not accepted.
#[derive(Debug, Error)]
pub enum GptError {
    /// The disk could not be read.
    #[error("read the partition table")]
    Read(#[from] std::io::Error),
    /// A field of the table is wrong.
    #[error("the disk has no valid guid partition table: {0}")]
    Invalid(&'static str),
}

/// A partition in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its type.
    pub type_guid: Guid,
    /// Its own GUID.
    pub unique_guid: Guid,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Its name.
    pub name: String,
    raw: [u8; 128],
}

/// A partition table.
#[derive(Clone, Debug)]
pub struct Gpt {
    header: [u8; 92],
    /// Partitions in use, in the table's order.
    pub partitions: Vec<Partition>,
}

impl Gpt {
    /// Reads the primary table and checks both checksums.
    ///
    /// # Errors
    /// [`GptError`].
    pub fn read<D: Read + Seek>(disk: &mut D) -> Result<Self, GptError> {
        let mut sectors = [0u8; 1024];
        disk.seek(SeekFrom::Start(0))?;
        disk.read_exact(&mut sectors)?;
        let (mbr, sector) = sectors.split_at(512);
        check_protective_mbr(mbr)?;
        let header: [u8; 92] = sector.first_chunk().copied().ok_or(GptError::Invalid("header"))?;
        let table = TableAddress::parse(&header)?;
        disk.seek(SeekFrom::Start(table.offset))?;
        let mut entries = vec![0u8; table.count * 128];
        disk.read_exact(&mut entries)?;
        if crc32(&entries) != table.crc {
            return Err(GptError::Invalid("checksum of the entries"));
        }
        let (entries, _) = entries.as_chunks::<128>();
        let used = entries.iter().filter(|entry| entry.iter().take(16).any(|byte| *byte != 0));
        let partitions = used.map(partition).collect::<Result<_, _>>()?;
        Ok(Self { header, partitions })
    }

    /// The only partition of a type.
    ///
    /// # Errors
    /// [`GptError::Invalid`] when there is none, or more than one.
    pub fn only(&self, type_guid: Guid) -> Result<&Partition, GptError> {
        let mut found = self.partitions.iter().filter(|partition| partition.type_guid == type_guid);
        match (found.next(), found.next()) {
            (Some(partition), None) => Ok(partition),
            (None, _) => Err(GptError::Invalid("no partition of the wanted type")),
            (Some(_), Some(_)) => Err(GptError::Invalid("several partitions of the wanted type")),
        }
    }

    /// EFI_GPT_DATA as the firmware measures it into PCR 5 (TCG PC Client platform firmware profile, section 10.4.6).
    pub fn measured_data(&self) -> Vec<u8> {
        let count = u64::try_from(self.partitions.len()).unwrap_or(u64::MAX);
        let mut out = self.header.to_vec();
        out.extend_from_slice(&count.to_le_bytes());
        self.partitions.iter().for_each(|partition| out.extend_from_slice(&partition.raw));
        out
    }
}

fn check_protective_mbr(mbr: &[u8]) -> Result<(), GptError> {
    let kinds = [0x1C2, 0x1D2, 0x1E2, 0x1F2].map(|offset| mbr.get(offset).copied());
    if le16_at(mbr, 510) != Some(0xAA55) || !kinds.contains(&Some(0xEE)) {
        return Err(GptError::Invalid("protective mbr"));
    }
    Ok(())
}

struct TableAddress {
    offset: u64,
    count: usize,
    crc: u32,
}

impl TableAddress {
    fn parse(header: &[u8; 92]) -> Result<Self, GptError> {
        let mut zeroed = *header;
        zeroed.iter_mut().skip(16).take(4).for_each(|byte| *byte = 0);
        if !header.starts_with(b"EFI PART") || le32_at(header, 12) != Some(92) {
            return Err(GptError::Invalid("signature or header size"));
        }
        if le32_at(header, 16) != Some(crc32(&zeroed)) {
            return Err(GptError::Invalid("checksum of the header"));
        }
        let mut fields = Cursor::new(header.get(24..).unwrap_or_default());
        let parsed = (|| {
            let my_lba = fields.le64()?;
            fields.take(40)?;
            Some((my_lba, fields.le64()?, fields.le32()?, fields.le32()?, fields.le32()?))
        })();
        let (my_lba, lba, count, entry_size, crc) = parsed.ok_or(GptError::Invalid("header"))?;
        if my_lba != 1 || entry_size != 128 || count == 0 || count > 1024 {
            return Err(GptError::Invalid("position, entry size or entry count"));
        }
        let offset = lba.checked_mul(SECTOR).filter(|offset| *offset >= 1024);
        let offset = offset.ok_or(GptError::Invalid("position of the entries"))?;
        Ok(Self { offset, count: size(count), crc })
    }
}

fn partition(raw: &[u8; 128]) -> Result<Partition, GptError> {
    let mut fields = Cursor::new(raw);
    let parsed = (|| {
        let (type_guid, unique_guid) = (Guid(fields.array()?), Guid(fields.array()?));
        let (first, last) = (fields.le64()?, fields.le64()?);
        fields.le64()?;
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        let (start, length) = (first.checked_mul(SECTOR)?, sectors.checked_mul(SECTOR)?);
        start.checked_add(length)?;
        let name = utf16le(fields.rest()).unwrap_or_default();
        let name = name.split('\0').next().unwrap_or_default().to_owned();
        Some(Partition { type_guid, unique_guid, start, length, name, raw: *raw })
    })();
    parsed.ok_or(GptError::Invalid("extent of a partition"))
}

/// CRC-32 as GPT uses it (reflected polynomial 0xEDB88320).
pub fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    };
    !data.iter().fold(u32::MAX, step)
}
