//! cpio archives in the "newc" format, read as a stream: names and kinds are kept, contents are passed over.

use std::io::{self, Read};

use super::InitramfsError;
use super::compression::Compression;
use super::contents::{Contents, Node};

const HEADER: usize = 110;
/// The kernel's PATH_MAX: it passes over entries with longer names.
const MAX_NAME: u32 = 4096;
/// Most bytes of a file whose content is kept.
const MAX_KEPT: u32 = 1 << 20;
const FIELDS: [&str; 13] = [
    "ino",
    "mode",
    "uid",
    "gid",
    "nlink",
    "mtime",
    "filesize",
    "devmajor",
    "devminor",
    "rdevmajor",
    "rdevminor",
    "namesize",
    "check",
];
const TRAILER: &[u8] = b"TRAILER!!!";

/// The fields that count.
struct Header {
    mode: u32,
    links: u32,
    size: u32,
    name: u32,
}

/// The archives of a segment.
pub(super) struct Archives<R> {
    stream: R,
    at: u64,
    budget: u64,
    compression: Option<Compression>,
}

impl<R: Read> Archives<R> {
    pub(super) fn new(stream: R, budget: u64, compression: Option<Compression>) -> Self {
        Self { stream, at: 0, budget, compression }
    }

    /// How many bytes may still be unpacked.
    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    /// One archive, up to its trailer.
    pub(super) fn read_one(&mut self, contents: &mut Contents) -> Result<(), InitramfsError> {
        let mut first = [0];
        self.fill(&mut first, "a header")?;
        self.archive(first[0], contents)
    }

    /// Archives and zeros up to the stream's end.
    pub(super) fn read_all(&mut self, contents: &mut Contents) -> Result<(), InitramfsError> {
        loop {
            let mut first = [0];
            if self.read(&mut first)? == 0 {
                return Ok(());
            }
            if first[0] != 0 {
                self.archive(first[0], contents)?;
            }
        }
    }

    /// An archive whose first byte was read.
    fn archive(&mut self, first: u8, contents: &mut Contents) -> Result<(), InitramfsError> {
        let mut bytes = [0; HEADER];
        bytes[0] = first;
        self.fill(&mut bytes[1..], "a header")?;
        while self.entry(&bytes, contents)? {
            self.fill(&mut bytes, "a header")?;
        }
        Ok(())
    }

    /// The entry behind a header; whether another one follows.
    fn entry(&mut self, bytes: &[u8; HEADER], contents: &mut Contents) -> Result<bool, InitramfsError> {
        let header = self.header(bytes)?;
        let name = self.bytes(header.name, "a name")?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        if name == TRAILER {
            return Ok(false);
        }
        self.pad("the padding of a name")?;
        let path = String::from_utf8_lossy(name).into_owned();
        let node = self.node(&header, &path, contents)?;
        self.pad("the padding of a file")?;
        contents.add(&path, node)?;
        Ok(true)
    }

    fn node(&mut self, header: &Header, path: &str, contents: &mut Contents) -> Result<Node, InitramfsError> {
        match header.mode & 0o170_000 {
            0o120_000 if header.size <= MAX_NAME => {
                let target = self.bytes(header.size, "the target of a link")?;
                Ok(Node::Link(String::from_utf8_lossy(&target).into_owned()))
            }
            0o100_000 if header.size <= MAX_KEPT && contents.wants(path) => {
                let content = self.bytes(header.size, "the content of a file")?;
                contents.keep(&content);
                Ok(Node::File)
            }
            kind => {
                self.skip(u64::from(header.size), "the content of a file")?;
                // Of several names of one file, one alone carries the content.
                let file = kind == 0o100_000 && (header.size > 0 || header.links > 1);
                Ok(if file { Node::File } else { Node::Other })
            }
        }
    }

    fn header(&self, bytes: &[u8; HEADER]) -> Result<Header, InitramfsError> {
        let at = self.at - HEADER as u64;
        let damaged = |field| InitramfsError::Damaged { field, at };
        let (magic, fields) = bytes.split_at(6);
        if !matches!(magic, b"070701" | b"070702") || !at.is_multiple_of(4) {
            return Err(damaged("the magic of a cpio header"));
        }
        let mut values = [0; FIELDS.len()];
        for ((value, digits), field) in values.iter_mut().zip(fields.chunks_exact(8)).zip(FIELDS) {
            *value = hexadecimal(digits).ok_or(damaged(field))?;
        }
        let [_, mode, _, _, links, _, size, _, _, _, _, name, _] = values;
        if name == 0 || name > MAX_NAME {
            return Err(damaged("namesize"));
        }
        Ok(Header { mode, links, size, name })
    }

    /// Up to the next multiple of four bytes.
    fn pad(&mut self, field: &'static str) -> Result<(), InitramfsError> {
        self.skip(self.at.wrapping_neg() % 4, field)
    }

    fn bytes(&mut self, count: u32, field: &'static str) -> Result<Vec<u8>, InitramfsError> {
        let mut out = vec![0; usize::try_from(count).unwrap_or_default()];
        self.fill(&mut out, field)?;
        Ok(out)
    }

    fn skip(&mut self, mut count: u64, field: &'static str) -> Result<(), InitramfsError> {
        let mut buffer = [0; 16 * 1024];
        while count > 0 {
            let wanted = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            self.fill(part, field)?;
            count -= wanted as u64;
        }
        Ok(())
    }

    fn fill(&mut self, mut buffer: &mut [u8], field: &'static str) -> Result<(), InitramfsError> {
        while !buffer.is_empty() {
            match self.read(buffer)? {
                0 => return Err(InitramfsError::Truncated { field, at: self.at }),
                count => buffer = buffer.get_mut(count..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, InitramfsError> {
        let count = loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let compression = self.compression.map_or("uncompressed", Compression::name);
        let count = count.map_err(|source| InitramfsError::Decompression { compression, source })?;
        let more = count as u64;
        self.budget = self.budget.checked_sub(more).ok_or(InitramfsError::TooMuch("1 GiB unpacked"))?;
        self.at += more;
        Ok(count)
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let text =
        std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    u32::from_str_radix(text?, 16).ok()
}
