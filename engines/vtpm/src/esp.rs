//! Read access to the EFI system partition: a FAT file system in a window of a disk.
//!
//! What the guest wrote there is not trusted to be a sane file system: reads are bounded, so that a loop in its cluster
//! chains ends in an error.

use std::io::{self, Read, Seek, SeekFrom, Write};

use aws_lc_rs::digest::{Context, SHA256};
use thiserror::Error;

use crate::pcr::{Digest, to_digest};

const PAGE: u64 = 64 * 1024;
const CACHED_PAGES: usize = 16;
/// Most bytes that are read from one partition before the reader gives up.
const BUDGET: u64 = 1 << 30;
/// Largest file that is taken into memory.
const MAX_FILE: u64 = 192 << 20;
/// Most entries of one directory.
const MAX_ENTRIES: usize = 4096;

/// Why the ESP cannot be read.
#[derive(Debug, Error)]
pub enum EspError {
    /// No usable FAT file system, or an unreadable disk.
    #[error("read {what} from the efi system partition")]
    Read {
        /// File or directory.
        what: String,
        /// What happened.
        source: io::Error,
    },
    /// The file is larger than any boot file.
    #[error("{0} on the efi system partition is too large")]
    TooLarge(String),
}

/// A part of a disk as a stream of its own, with a small cache. Writing fails.
struct Window<'a, D> {
    disk: &'a mut D,
    start: u64,
    length: u64,
    position: u64,
    pages: Vec<(u64, Vec<u8>)>,
    budget: u64,
}

impl<D: Read + Seek> Window<'_, D> {
    /// The cached page of that number, the most recently used first.
    fn page(&mut self, number: u64) -> io::Result<&[u8]> {
        let found = self.pages.iter().position(|(cached, _)| *cached == number);
        let page = match found {
            Some(place) => self.pages.remove(place),
            None => {
                self.pages.truncate(CACHED_PAGES - 1);
                (number, self.load(number)?)
            }
        };
        self.pages.insert(0, page);
        Ok(self.pages.first().map(|(_, data)| data.as_slice()).unwrap_or_default())
    }

    fn load(&mut self, number: u64) -> io::Result<Vec<u8>> {
        let offset = number * PAGE;
        let length = PAGE.min(self.length.saturating_sub(offset));
        let mut data = vec![0; usize::try_from(length).unwrap_or_default()];
        self.disk.seek(SeekFrom::Start(self.start + offset))?;
        self.disk.read_exact(&mut data)?;
        Ok(data)
    }
}

impl<D: Read + Seek> Read for Window<'_, D> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.length || out.is_empty() {
            return Ok(0);
        }
        let within = usize::try_from(self.position % PAGE).unwrap_or_default();
        let page = self.page(self.position / PAGE)?;
        let available = page.get(within..).unwrap_or_default();
        let count = available.len().min(out.len());
        out.iter_mut().zip(available).for_each(|(to, from)| *to = *from);
        let read = u64::try_from(count).unwrap_or_default();
        self.budget = self.budget.checked_sub(read).ok_or_else(|| io::Error::other("too much was read"))?;
        self.position += read;
        Ok(count)
    }
}

impl<D> Write for Window<'_, D> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the partition is opened for reading"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<D> Seek for Window<'_, D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
        };
        let target = target.filter(|offset| *offset <= self.length);
        self.position =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "outside the partition"))?;
        Ok(self.position)
    }
}

/// A file or directory in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name as written.
    pub name: String,
    /// Whether it is a directory.
    pub directory: bool,
}

/// An opened ESP. Paths are separated by `/`, without one in front; names compare without regard to case.
pub struct Esp<'a, D: Read + Seek> {
    fs: fatfs::FileSystem<Window<'a, D>>,
}

impl<'a, D: Read + Seek> Esp<'a, D> {
    /// Opens the FAT file system in `length` bytes from `start` of the disk.
    ///
    /// # Errors
    /// [`EspError::Read`].
    pub fn open(disk: &'a mut D, start: u64, length: u64) -> Result<Self, EspError> {
        let window = Window { disk, start, length, position: 0, pages: Vec::new(), budget: BUDGET };
        let options = fatfs::FsOptions::new().update_accessed_date(false);
        let fs = fatfs::FileSystem::new(window, options)
            .map_err(|source| EspError::Read { what: "the file system".to_owned(), source })?;
        Ok(Self { fs })
    }

    /// The volume label of the boot sector.
    pub fn volume_label(&self) -> String {
        self.fs.volume_label()
    }

    /// The volume's serial number as `XXXX-XXXX`.
    pub fn volume_id(&self) -> String {
        let id = self.fs.volume_id();
        format!("{:04X}-{:04X}", id >> 16, id & 0xFFFF)
    }

    /// A whole file; `None` when there is no such file.
    ///
    /// # Errors
    /// [`EspError`].
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, EspError> {
        let failed = |source| EspError::Read { what: path.to_owned(), source };
        let Some(file) = self.file(path)? else { return Ok(None) };
        let mut content = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 > MAX_FILE {
            return Err(EspError::TooLarge(path.to_owned()));
        }
        Ok(Some(content))
    }

    /// Adds a file to a running hash, and returns its length; `None` when there is no such file.
    ///
    /// # Errors
    /// [`EspError::Read`].
    pub fn hash_into(&self, path: &str, context: &mut Context) -> Result<Option<u64>, EspError> {
        let Some(mut file) = self.file(path)? else { return Ok(None) };
        let mut buffer = vec![0; 64 * 1024];
        let mut total = 0;
        loop {
            let count =
                file.read(&mut buffer).map_err(|source| EspError::Read { what: path.to_owned(), source })?;
            if count == 0 {
                return Ok(Some(total));
            }
            total += count as u64;
            context.update(buffer.get(..count).unwrap_or_default());
        }
    }

    /// SHA-256 of a file.
    ///
    /// # Errors
    /// [`EspError::Read`].
    pub fn sha256(&self, path: &str) -> Result<Option<Digest>, EspError> {
        let mut context = Context::new(&SHA256);
        let found = self.hash_into(path, &mut context)?;
        Ok(found.map(|_| to_digest(context.finish().as_ref())))
    }

    /// Whether a file of that path exists.
    ///
    /// # Errors
    /// [`EspError::Read`].
    pub fn exists(&self, path: &str) -> Result<bool, EspError> {
        Ok(self.file(path)?.is_some())
    }

    /// The entries of a directory, without `.` and `..`; `None` when there is no such directory.
    ///
    /// # Errors
    /// [`EspError`].
    pub fn list(&self, path: &str) -> Result<Option<Vec<Entry>>, EspError> {
        let failed = |source| EspError::Read { what: path.to_owned(), source };
        let directory = match self.fs.root_dir().open_dir(path) {
            Ok(directory) => directory,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut entries = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if entries.len() == MAX_ENTRIES {
                return Err(EspError::TooLarge(path.to_owned()));
            }
            if name != "." && name != ".." {
                entries.push(Entry { name, directory: entry.is_dir() });
            }
        }
        Ok(Some(entries))
    }

    #[allow(clippy::type_complexity, reason = "fatfs names its file type with the stream's type")]
    fn file(&self, path: &str) -> Result<Option<fatfs::File<'_, Window<'a, D>>>, EspError> {
        match self.fs.root_dir().open_file(path.trim_start_matches('/')) {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(EspError::Read { what: path.to_owned(), source }),
        }
    }
}

/// fatfs says "not found" by kind; for a directory in a file's place, or the reverse, it says "other" with a text.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
