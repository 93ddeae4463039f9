//! Disks as streams, and the boot partition's files on them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use paravisor::disk::BlockDevice;

use super::image::{ESP_START, IMAGE_BYTES};

/// A part of a disk as a stream.
pub struct Window {
    disk: Backing,
    start: u64,
    length: u64,
    position: u64,
}

enum Backing {
    File(File),
    Device(Arc<dyn BlockDevice>),
}

impl Window {
    /// The whole of a VM's disk.
    pub fn whole(disk: Arc<dyn BlockDevice>) -> Self {
        let length = disk.size();
        Self { disk: Backing::Device(disk), start: 0, length, position: 0 }
    }

    fn left(&self, wanted: usize) -> usize {
        usize::try_from(self.length - self.position).unwrap().min(wanted)
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
        self.position = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.length.checked_add_signed(by).unwrap(),
            SeekFrom::Current(by) => self.position.checked_add_signed(by).unwrap(),
        };
        Ok(self.position)
    }
}

/// The boot partition.
pub struct Esp(FileSystem<Window>);

impl Esp {
    pub fn format(file: File, start: u64, length: u64) -> Self {
        let mut window = Window { disk: Backing::File(file), start, length, position: 0 };
        fatfs::format_volume(&mut window, FormatVolumeOptions::new()).unwrap();
        window.position = 0;
        Self(FileSystem::new(window, FsOptions::new()).unwrap())
    }

    /// The boot partition of a running VM, as the guest mounts it.
    pub fn mount(disk: Arc<dyn BlockDevice>) -> Self {
        let mut window = Window::whole(disk);
        (window.start, window.length) = (ESP_START, IMAGE_BYTES - ESP_START);
        Self(FileSystem::new(window, FsOptions::new()).unwrap())
    }

    pub fn write(&self, path: &str, content: &[u8]) {
        let mut folder = self.0.root_dir();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            folder = folder.create_dir(part).unwrap();
        }
        let mut file = folder.create_file(name).unwrap();
        file.truncate().unwrap();
        file.write_all(content).unwrap();
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        let mut content = Vec::new();
        self.0.root_dir().open_file(path).unwrap().read_to_end(&mut content).unwrap();
        content
    }
}
