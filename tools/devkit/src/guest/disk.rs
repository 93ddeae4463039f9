//! Disks as streams, and the boot partition's files on them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

use super::image::{ESP_BYTES, ESP_START, IMAGE_BYTES};

/// A disk as its guest has it.
pub trait Disk: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
}

/// A part of a disk as a stream.
pub struct Window {
    disk: Backing,
    start: u64,
    length: u64,
    position: u64,
}

enum Backing {
    File(File),
    Device(Arc<dyn Disk>),
}

impl Window {
    /// The whole of a VM's disk.
    pub fn whole(disk: Arc<dyn Disk>) -> Self {
        let length = disk.size();
        Self { disk: Backing::Device(disk), start: 0, length, position: 0 }
    }

    fn left(&self, wanted: usize) -> usize {
        usize::try_from(self.length - self.position).map_or(wanted, |left| left.min(wanted))
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.left(buffer.len());
        let (buffer, offset) = (&mut buffer[..count], self.start + self.position);
        match &self.disk {
            Backing::File(file) => file.read_exact_at(buffer, offset)?,
            Backing::Device(disk) => disk.read_at(buffer, offset)?,
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Window {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.left(data.len());
        let (data, offset) = (&data[..count], self.start + self.position);
        match &self.disk {
            Backing::File(file) => file.write_all_at(data, offset)?,
            Backing::Device(disk) => disk.write_at(data, offset)?,
        }
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// The boot partition. Its methods panic where a file system of our own making does not do what it must.
pub struct Esp(FileSystem<Window>);

impl Esp {
    /// Makes the file system in a part of a file.
    pub fn format(file: File, start: u64, length: u64) -> Self {
        let mut window = Window { disk: Backing::File(file), start, length, position: 0 };
        fatfs::format_volume(&mut window, FormatVolumeOptions::new()).expect("a volume of that size");
        window.position = 0;
        Self(FileSystem::new(window, FsOptions::new()).expect("a FAT file system"))
    }

    /// The boot partition of a running VM, as the guest mounts it.
    pub fn mount(disk: Arc<dyn Disk>) -> Self {
        let mut window = Window::whole(disk);
        (window.start, window.length) = (ESP_START, IMAGE_BYTES - ESP_START);
        Self(FileSystem::new(window, FsOptions::new()).expect("a FAT file system"))
    }

    /// The boot partition of an image.
    pub fn open(file: File) -> Self {
        let window = Window { disk: Backing::File(file), start: ESP_START, length: ESP_BYTES, position: 0 };
        Self(FileSystem::new(window, FsOptions::new()).expect("a FAT file system"))
    }

    /// Removes a file.
    pub fn remove(&self, path: &str) {
        self.0.root_dir().remove(path).expect("the file");
    }

    /// Writes a file and makes its folders.
    pub fn write(&self, path: &str, content: &[u8]) {
        let mut folder = self.0.root_dir();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            folder = folder.create_dir(part).expect("a folder");
        }
        let mut file = folder.create_file(name).expect("a file");
        file.truncate().expect("truncated");
        file.write_all(content).expect("written");
    }

    /// Reads a file.
    pub fn read(&self, path: &str) -> Vec<u8> {
        let mut content = Vec::new();
        let mut file = self.0.root_dir().open_file(path).expect("the file");
        file.read_to_end(&mut content).expect("read");
        content
    }
}
