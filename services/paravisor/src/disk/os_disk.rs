//! The encrypted OS disk: ciphertext from the host's file, everything else from the authenticated boot region.
//!
//! ```text
//! 0 ──────────── data start ═══════════════ data end ──────────── end
//! boot region    host's file, ciphertext    boot region
//! ```

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use internal_api::paravisor::Event;
use sealed_disk::boot_region::BootRegionError;
use sealed_disk::image::DiskLayout;

use super::{BlockDevice, hole};
use crate::failure::{Stop, chain};
use crate::flow::keeper::Keeper;
use crate::flow::world::Observer;

/// The disk of a VM with `DiskWithVMGuestState`.
pub struct OsDisk {
    layout: DiskLayout,
    file: File,
    keeper: Arc<Mutex<Keeper>>,
    observer: Arc<dyn Observer>,
    reported: AtomicBool,
}

/// A part of a request, and where it lies.
enum Part {
    Region(Range<u64>),
    Data(Range<u64>),
}

impl OsDisk {
    /// A disk over the host's file and the keeper's boot region.
    pub fn new(
        layout: DiskLayout,
        file: File,
        keeper: Arc<Mutex<Keeper>>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self { layout, file, keeper, observer, reported: AtomicBool::new(false) }
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts(&self, offset: u64, length: u64) -> impl Iterator<Item = Part> {
        let (data_start, data_end) = (self.layout.data_start, self.layout.data_end);
        let end = offset.saturating_add(length);
        let cut = move |from: u64, to: u64| offset.max(from)..end.min(to).max(offset.max(from));
        [
            Part::Region(cut(0, data_start)),
            Part::Data(cut(data_start, data_end)),
            Part::Region(cut(data_end, u64::MAX)),
        ]
        .into_iter()
        .filter(|part| match part {
            Part::Region(range) | Part::Data(range) => !range.is_empty(),
        })
    }

    fn read_region(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut keeper = self.keeper();
        let region = keeper.region.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        region.read_at(offset, buffer).map_err(|error| self.region_failed(error))
    }

    fn write_region(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut keeper = self.keeper();
        keeper.region_written();
        let region = keeper.region.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        region.write_at(offset, data).map_err(|error| self.region_failed(error))
    }

    fn region_failed(&self, error: BootRegionError) -> io::Error {
        let tampered = matches!(error, BootRegionError::Tampered { .. } | BootRegionError::Truncated { .. });
        if tampered && !self.reported.swap(true, Ordering::SeqCst) {
            self.observer.event(Event::TamperingSeen { what: chain(&error) });
        }
        match error {
            BootRegionError::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}

/// The piece of a buffer that belongs to a range of the request.
fn piece<'a>(buffer: &'a [u8], offset: u64, range: &Range<u64>) -> io::Result<&'a [u8]> {
    let index = |at: u64| usize::try_from(at - offset).map_err(io::Error::other);
    buffer.get(index(range.start)?..index(range.end)?).ok_or(io::ErrorKind::InvalidInput.into())
}

fn piece_mut<'a>(buffer: &'a mut [u8], offset: u64, range: &Range<u64>) -> io::Result<&'a mut [u8]> {
    let index = |at: u64| usize::try_from(at - offset).map_err(io::Error::other);
    buffer.get_mut(index(range.start)?..index(range.end)?).ok_or(io::ErrorKind::InvalidInput.into())
}

impl BlockDevice for OsDisk {
    fn size(&self) -> u64 {
        self.layout.disk_bytes
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        for part in self.parts(offset, buffer.len() as u64) {
            match part {
                Part::Data(range) => {
                    self.file.read_exact_at(piece_mut(buffer, offset, &range)?, range.start)?
                }
                Part::Region(range) => {
                    let piece = piece_mut(buffer, offset, &range)?;
                    self.read_region(range.start, piece)?;
                }
            }
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        for part in self.parts(offset, data.len() as u64) {
            match part {
                Part::Data(range) => self.file.write_all_at(piece(data, offset, &range)?, range.start)?,
                Part::Region(range) => {
                    let piece = piece(data, offset, &range)?;
                    self.write_region(range.start, piece)?;
                }
            }
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, keep_space: bool) -> io::Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        for part in self.parts(offset, length) {
            match part {
                Part::Data(range) => hole::zero(&self.file, range, keep_space)?,
                Part::Region(mut range) => {
                    while !range.is_empty() {
                        let length = (range.end - range.start).min(ZEROS.len() as u64);
                        let zeros = piece(&ZEROS, 0, &(0..length))?;
                        self.write_region(range.start, zeros)?;
                        range.start += length;
                    }
                }
            }
        }
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        for part in self.parts(offset, length) {
            if let Part::Data(range) = part {
                hole::punch(&self.file, range)?;
            }
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.keeper().commit().map_err(|stop| as_io(&stop))
    }
}

fn as_io(stop: &Stop) -> io::Error {
    let failure = stop.failure();
    match failure.code.as_str() {
        "DiskFull" => io::ErrorKind::StorageFull.into(),
        code => io::Error::other(format!("{code}: {}", failure.actual)),
    }
}
