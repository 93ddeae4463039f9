//! PE/COFF images as the boot chain sees them: the Authenticode SHA-256 that firmware and shim measure into PCR 4, the
//! sections, and the embedded signatures (Microsoft, "Windows Authenticode Portable Executable Signature Format"; the
//! hash as EDK2's `MeasurePeImageAndExtend` computes it).

use aws_lc_rs::digest::{Context, SHA256};
use thiserror::Error;

use crate::bytes::{le16_at, le32_at, size, slice};
use crate::certificate::Signature;
use crate::pcr::{Digest, to_digest};

/// Why a file is not accepted as a PE image.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PeError {
    /// A header is missing, or points outside the file.
    #[error("not a pe image: {0}")]
    Malformed(&'static str),
}

fn malformed(what: &'static str) -> PeError {
    PeError::Malformed(what)
}

/// A section's place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name, also when it is longer than eight characters.
    pub name: String,
    virtual_size: usize,
    raw_offset: usize,
    raw_size: usize,
}

/// A parsed image.
#[derive(Clone, Debug)]
pub struct Pe<'a> {
    data: &'a [u8],
    checksum: usize,
    /// Offset of the security directory entry, where the image has one.
    security_entry: Option<usize>,
    certificates: (usize, usize),
    size_of_headers: usize,
    sections: Vec<Section>,
}

/// The Authenticode SHA-256 of an image.
///
/// # Errors
/// [`PeError`] for what is not a PE image.
pub fn sha256(pe: &[u8]) -> Result<Digest, PeError> {
    Pe::parse(pe)?.sha256()
}

impl<'a> Pe<'a> {
    /// Parses the headers of a PE32 or PE32+ image.
    ///
    /// # Errors
    /// [`PeError`].
    pub fn parse(data: &'a [u8]) -> Result<Self, PeError> {
        if slice(data, 0, 2) != Some(b"MZ") {
            return Err(malformed("no MZ header"));
        }
        let coff = size(le32_at(data, 0x3C).ok_or(malformed("no pe offset"))?);
        if slice(data, coff, 4) != Some(b"PE\0\0") {
            return Err(malformed("no pe signature"));
        }
        let short = malformed("truncated headers");
        let optional = coff.checked_add(24).ok_or(short.clone())?;
        let word = |offset: usize| le32_at(data, optional.saturating_add(offset)).ok_or(short.clone());
        let directories = match le16_at(data, optional) {
            Some(0x10B) => 96,
            Some(0x20B) => 112,
            _ => return Err(malformed("unknown optional header")),
        };
        let mut pe = Self {
            data,
            checksum: optional + 64,
            security_entry: None,
            certificates: (0, 0),
            size_of_headers: size(word(60)?),
            sections: sections(data, coff)?,
        };
        if word(directories - 4)? > 4 {
            let entry = directories + 4 * 8;
            pe.security_entry = Some(optional + entry);
            pe.certificates = (size(word(entry)?), size(word(entry + 4)?));
        }
        Ok(pe)
    }

    /// The Authenticode SHA-256.
    ///
    /// # Errors
    /// [`PeError`] when the headers point outside the file.
    pub fn sha256(&self) -> Result<Digest, PeError> {
        let mut context = Context::new(&SHA256);
        let mut part = |from: usize, to: usize| {
            context.update(self.data.get(from..to).ok_or(malformed("headers point outside the file"))?);
            Ok(())
        };
        part(0, self.checksum)?;
        match self.security_entry {
            Some(entry) => {
                part(self.checksum + 4, entry)?;
                part(entry + 8, self.size_of_headers)?;
            }
            None => part(self.checksum + 4, self.size_of_headers)?,
        }
        let mut hashed = self.size_of_headers;
        let mut sections: Vec<_> = self.sections.iter().filter(|section| section.raw_size != 0).collect();
        sections.sort_by_key(|section| section.raw_offset);
        for section in sections {
            let end = section.raw_offset.checked_add(section.raw_size).ok_or(malformed("section size"))?;
            part(section.raw_offset, end)?;
            hashed = hashed.checked_add(section.raw_size).ok_or(malformed("section size"))?;
        }
        let end = self.data.len().checked_sub(self.certificates.1).ok_or(malformed("certificate table"))?;
        if end < hashed {
            return Err(malformed("certificate table overlaps the image"));
        }
        part(hashed, end)?;
        Ok(to_digest(context.finish().as_ref()))
    }

    /// A section's content as loaded: its virtual size, but no more than the file holds.
    pub fn section(&self, name: &str) -> Option<&'a [u8]> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        slice(self.data, section.raw_offset, section.virtual_size.min(section.raw_size))
    }

    /// The sections in the order of the section table.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The embedded Authenticode signatures, in their order; those of another kind are left out.
    pub(crate) fn signatures(&self) -> Vec<Signature<'a>> {
        let (mut offset, length) = self.certificates;
        let end = offset.saturating_add(length).min(self.data.len());
        let mut found = Vec::new();
        while let (Some(size32), Some(kind)) =
            (le32_at(self.data, offset), le16_at(self.data, offset.saturating_add(6)))
        {
            let entry = size(size32);
            if entry < 8 || offset.saturating_add(entry) > end {
                break;
            }
            if let (2, Some(content)) = (kind, slice(self.data, offset + 8, entry - 8)) {
                found.extend(Signature::parse(content));
            }
            offset = (offset + entry).next_multiple_of(8);
        }
        found
    }
}

fn sections(data: &[u8], coff: usize) -> Result<Vec<Section>, PeError> {
    let short = || malformed("truncated section table");
    let header = |offset: usize| coff.checked_add(offset).ok_or(short());
    let count = usize::from(le16_at(data, header(6)?).ok_or(short())?);
    let symbols = size(le32_at(data, header(12)?).ok_or(short())?);
    let symbol_count = size(le32_at(data, header(16)?).ok_or(short())?);
    let strings = symbol_count.checked_mul(18).and_then(|bytes| bytes.checked_add(symbols));
    let optional_size = usize::from(le16_at(data, header(20)?).ok_or(short())?);
    let table = header(24)?.checked_add(optional_size).ok_or(short())?;
    (0..count)
        .map(|number| {
            let entry = slice(data, table.saturating_add(number * 40), 40).ok_or(short())?;
            let field = |offset| le32_at(entry, offset).map(size).ok_or(short());
            Ok(Section {
                name: section_name(data, entry.get(..8).unwrap_or_default(), strings),
                virtual_size: field(8)?,
                raw_size: field(16)?,
                raw_offset: field(20)?,
            })
        })
        .collect()
}

/// A name of up to eight bytes, or `/NN`: an offset into the string table behind the symbols.
fn section_name(data: &[u8], raw: &[u8], strings: Option<usize>) -> String {
    let text = until_nul(raw);
    let long = || {
        let offset: usize = text.strip_prefix('/')?.parse().ok()?;
        let start = strings?.checked_add(offset)?;
        Some(until_nul(data.get(start..start.checked_add(64)?.min(data.len()))?))
    };
    long().unwrap_or(text)
}

fn until_nul(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
