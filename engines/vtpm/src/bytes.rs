//! A cursor over foreign bytes. Each step returns `None` at the end of the data; nothing here panics.

pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(count)?;
        self.rest = tail;
        Some(head)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>()?;
        self.rest = tail;
        Some(*head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn be16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn be32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn be64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn le16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn le32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn le64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A TPM2B: big-endian 16-bit size, then that many bytes.
    pub fn tpm2b(&mut self) -> Option<&'a [u8]> {
        let size = self.be16()?;
        self.take(usize::from(size))
    }
}

/// `data[offset..offset + length]`, or `None` where that leaves the data.
pub(crate) fn slice(data: &[u8], offset: usize, length: usize) -> Option<&[u8]> {
    data.get(offset..offset.checked_add(length)?)
}

pub(crate) fn le16_at(data: &[u8], offset: usize) -> Option<u16> {
    Cursor::new(data.get(offset..)?).le16()
}

pub(crate) fn le32_at(data: &[u8], offset: usize) -> Option<u32> {
    Cursor::new(data.get(offset..)?).le32()
}

/// A 32-bit size from a file as a `usize`; saturates where a `usize` is smaller, so that later bounds checks fail.
pub(crate) fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// UTF-16LE text without a terminator; `None` for an odd length or unpaired surrogates.
pub(crate) fn utf16le(data: &[u8]) -> Option<String> {
    let (units, []) = data.as_chunks::<2>() else { return None };
    char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit))).collect::<Result<String, _>>().ok()
}

/// The UTF-16LE bytes of a text, without a terminator.
pub(crate) fn to_utf16le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
