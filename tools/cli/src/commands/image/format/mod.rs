//! What kind of file an image lies in, told by its magic number and never by `qemu-img`'s probing: a header may name
//! other files of this machine, and whoever made the image could so have them copied into it. Cut-off files are found
//! here too, because `qemu-img` reads zeros behind a file's end.

mod qcow2;
#[cfg(test)]
mod tests;
mod vhd;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::failure::Failure;

/// The largest disk that is taken.
const MAX_DISK: u64 = 4 << 40;

/// Formats and compressions that are told apart to be refused: magic, its place, name, remedy.
const REFUSED: [(&[u8], u64, &str, &str); 11] = [
    (b"KDMV", 0, "a VMDK file", CONVERT),
    (b"COWD", 0, "a VMDK file", CONVERT),
    (b"# Disk Descriptor", 0, "a VMDK descriptor, which names other files", CONVERT),
    (&[0x7f, 0x10, 0xda, 0xbe], 64, "a VDI file", CONVERT),
    (b"QED\0", 0, "a QED file", CONVERT),
    (
        b"LUKS\xba\xbe",
        0,
        "a LUKS container",
        "import the plain image; each VM's disk is encrypted when it first starts",
    ),
    (&[0x1f, 0x8b], 0, "compressed with gzip", "unpack it first: `gzip -d` (`tar -xf` for a .tar.gz)"),
    (b"\xfd7zXZ\0", 0, "compressed with xz", "unpack it first: `xz -d` (`tar -xf` for a .tar.xz)"),
    (&[0x28, 0xb5, 0x2f, 0xfd], 0, "compressed with zstd", "unpack it first: `zstd -d`"),
    (b"BZh", 0, "compressed with bzip2", "unpack it first: `bzip2 -d`"),
    (b"PK\x03\x04", 0, "a zip archive", "unpack it first: `unzip`"),
];
const CONVERT: &str =
    "convert it first, if you trust what it names: `qemu-img convert -O qcow2 FILE image.qcow2`";
const FETCH_AGAIN: &str = "fetch or copy the file again, and compare its checksum with the publisher's";

/// A format that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// Virtual Hard Disk, fixed or dynamic.
    Vhd,
    /// Hyper-V's later format; its own structure is left to `qemu-img` to check.
    Vhdx,
}

impl Format {
    /// QEMU's name of the driver.
    fn driver(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vpc",
            Self::Vhdx => "vhdx",
        }
    }
}

/// A file whose format is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// Its format.
    pub format: Format,
    /// The disk's size, where the format's header was read.
    pub disk_bytes: Option<u64>,
}

/// Why a file is not taken.
#[derive(Debug)]
struct Fault {
    found: String,
    remedy: &'static str,
}

impl Fault {
    fn new(found: impl Into<String>, remedy: &'static str) -> Self {
        Self { found: found.into(), remedy }
    }

    fn cut_off(field: &str, end: u64, length: u64) -> Self {
        Self::new(
            format!("the file is cut off: {field} reaches to byte {end}, the file has {length}"),
            FETCH_AGAIN,
        )
    }

    fn damaged(field: &str) -> Self {
        Self::new(format!("the file is damaged: {field}"), FETCH_AGAIN)
    }
}

impl Recognised {
    /// `qemu-img`'s options for this file (an absolute path), in which nothing is left to be probed. A VHD's size is the
    /// one that its footer states, whoever wrote it.
    pub fn options(self, path: &Path) -> Result<String> {
        let name = path.to_str().context("the path of an image must be UTF-8")?.replace(',', ",,");
        let size = if self.format == Format::Vhd { ",force_size_calc=current_size" } else { "" };
        let driver = self.format.driver();
        Ok(format!("driver={driver}{size},file.driver=file,file.filename={name}"))
    }
}

/// Tells what kind of file this is, and refuses what is not whole in itself.
pub fn recognise(path: &Path) -> Result<Recognised> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let image = Image { length: file.metadata()?.len(), file };
    image
        .recognise()
        .map_err(|fault| Failure::you(format!("{}: {}", path.display(), fault.found), fault.remedy))
}

/// An opened image file.
struct Image {
    file: File,
    length: u64,
}

impl Image {
    fn recognise(&self) -> Result<Recognised, Fault> {
        let known = |format, disk_bytes| Ok(Recognised { format, disk_bytes });
        if self.length == 0 {
            return Err(Fault::new("the file is empty", FETCH_AGAIN));
        } else if self.has(qcow2::MAGIC, 0) {
            return known(Format::Qcow2, Some(qcow2::check(self)?));
        } else if self.has(b"vhdxfile", 0) {
            return known(Format::Vhdx, None);
        } else if vhd::is(self) {
            return known(Format::Vhd, Some(vhd::check(self)?));
        }
        if let Some((_, _, name, remedy)) = REFUSED.iter().find(|(magic, at, ..)| self.has(magic, *at)) {
            return Err(Fault::new(
                format!("this is {name}; raw, qcow2 and VHD files can be imported"),
                remedy,
            ));
        }
        if !self.length.is_multiple_of(512) {
            let found =
                format!("the file is cut off: {} bytes are no whole number of 512-byte blocks", self.length);
            return Err(Fault::new(found, FETCH_AGAIN));
        }
        known(Format::Raw, Some(disk_size(self.length)?))
    }

    fn has(&self, magic: &[u8], at: u64) -> bool {
        let mut found = vec![0; magic.len()];
        self.file.read_exact_at(&mut found, at).is_ok() && found == magic
    }

    /// Bytes that a field of the file says are there.
    fn bytes(&self, field: &str, at: u64, count: usize) -> Result<Vec<u8>, Fault> {
        self.holds(field, at, count as u64)?;
        let mut out = vec![0; count];
        match self.file.read_exact_at(&mut out, at) {
            Ok(()) => Ok(out),
            Err(error) => Err(Fault::new(format!("reading {field}: {error}"), FETCH_AGAIN)),
        }
    }

    fn holds(&self, field: &str, at: u64, count: u64) -> Result<(), Fault> {
        match at.checked_add(count) {
            Some(end) if end <= self.length => Ok(()),
            end => Err(Fault::cut_off(field, end.unwrap_or(u64::MAX), self.length)),
        }
    }
}

fn disk_size(bytes: u64) -> Result<u64, Fault> {
    match bytes {
        0 => Err(Fault::damaged("the disk's size is 0")),
        bytes if bytes > MAX_DISK => {
            Err(Fault::new(format!("the disk has {bytes} bytes, more than 4 TiB"), "shrink the image"))
        }
        bytes => Ok(bytes),
    }
}

/// A big-endian number of a header whose length was checked.
fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    let field = bytes.get(at..at + width).unwrap_or_default();
    field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
