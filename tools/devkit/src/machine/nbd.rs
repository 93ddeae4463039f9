//! The least NBD client: one export over a Unix socket, as QEMU's guest reaches its disk.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::guest::disk::Disk;

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const EXPORT_NAME: u32 = 1;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
/// Fixed newstyle, no zeroes after the handshake.
const FLAGS: u32 = 3;
/// Longest piece of one request.
const PIECE: usize = 1 << 20;

/// A connection to an export.
pub struct NbdDisk {
    stream: Mutex<UnixStream>,
    size: u64,
}

impl NbdDisk {
    /// Connects to the export without a name.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        let mut hello = FLAGS.to_be_bytes().to_vec();
        hello.extend(OPTION_MAGIC.to_be_bytes());
        hello.extend(EXPORT_NAME.to_be_bytes());
        hello.extend([0; 4]);
        stream.write_all(&hello)?;
        let mut export = [0; 10];
        stream.read_exact(&mut export)?;
        let (size, _flags) = export.split_first_chunk().expect("ten bytes");
        Ok(Self { size: u64::from_be_bytes(*size), stream: Mutex::new(stream) })
    }

    /// Returns when everything written is durable.
    pub fn flush(&self) -> io::Result<()> {
        answer(&mut *self.send(FLUSH, 0, 0, &[])?)
    }

    /// Takes leave.
    pub fn disconnect(&self) -> io::Result<()> {
        self.send(DISCONNECT, 0, 0, &[]).map(drop)
    }

    fn send(
        &self,
        command: u16,
        offset: u64,
        length: usize,
        data: &[u8],
    ) -> io::Result<MutexGuard<'_, UnixStream>> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend([0, 0]);
        request.extend(command.to_be_bytes());
        request.extend([0; 8]);
        request.extend(offset.to_be_bytes());
        request.extend(u32::try_from(length).map_err(io::Error::other)?.to_be_bytes());
        request.extend(data);
        stream.write_all(&request)?;
        Ok(stream)
    }
}

/// Reads a simple reply.
fn answer(stream: &mut UnixStream) -> io::Result<()> {
    let mut reply = [0; 16];
    stream.read_exact(&mut reply)?;
    let [a, b, c, d, e, f, g, h, ..] = reply;
    match (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])) {
        (REPLY_MAGIC, 0) => Ok(()),
        (REPLY_MAGIC, error) => Err(io::Error::other(format!("the disk answered with error {error}"))),
        _ => Err(io::Error::other("the disk's answer is no reply of NBD")),
    }
}

impl Disk for NbdDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for piece in buffer.chunks_mut(PIECE) {
            let mut stream = self.send(READ, at, piece.len(), &[])?;
            answer(&mut stream)?;
            stream.read_exact(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for piece in data.chunks(PIECE) {
            answer(&mut *self.send(WRITE, at, piece.len(), piece)?)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}
