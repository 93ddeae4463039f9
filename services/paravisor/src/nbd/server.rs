//! An NBD server for one export per Unix socket: fixed newstyle handshake, simple replies.
//!
//! Each connection has a thread; the device is shared. Every range is checked here against the device's size before the
//! device sees it, so a device need not be afraid of offsets. The export has the empty name.

use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use super::wire::*;
use crate::disk::{BlockDevice, check_range};

/// The device behind a socket.
pub type SharedDisk = Arc<dyn BlockDevice>;

/// Serves connections until the listener is shut down.
pub fn serve(listener: &UnixListener, disk: &SharedDisk) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            Err(error) => return Err(error),
        };
        let disk = Arc::clone(disk);
        std::thread::Builder::new().name("nbd".to_owned()).spawn(move || {
            match Connection::new(stream, disk).and_then(Connection::run) {
                Ok(()) => tracing::debug!("an NBD client is gone"),
                Err(error) => tracing::debug!(%error, "an NBD connection ended"),
            }
        })?;
    }
}

struct Connection {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    disk: SharedDisk,
    buffer: Vec<u8>,
}

/// What the handshake led to.
enum Negotiated {
    Transmission,
    Aborted,
}

impl Connection {
    fn new(stream: UnixStream, disk: SharedDisk) -> io::Result<Self> {
        let writer = stream.try_clone()?;
        Ok(Self { reader: BufReader::new(stream), writer, disk, buffer: Vec::new() })
    }

    fn run(mut self) -> io::Result<()> {
        match self.handshake()? {
            Negotiated::Aborted => Ok(()),
            Negotiated::Transmission => self.transmit(),
        }
    }

    fn export_flags(&self) -> u16 {
        EXPORT_FLAGS | if self.disk.read_only() { EXPORT_READ_ONLY } else { 0 }
    }

    fn handshake(&mut self) -> io::Result<Negotiated> {
        let mut greeting = GREETING.to_be_bytes().to_vec();
        greeting.extend(OPTION_MAGIC.to_be_bytes());
        greeting.extend(HANDSHAKE_FLAGS.to_be_bytes());
        self.writer.write_all(&greeting)?;
        let client = read_u32(&mut self.reader)?;
        if client & !u32::from(HANDSHAKE_FLAGS) != 0 {
            return Err(invalid("unknown client flags"));
        }
        loop {
            let option = ClientOption::read(&mut self.reader)?;
            match option.number {
                OPT_EXPORT_NAME => return self.export_name(&option, client & CLIENT_NO_ZEROES != 0),
                OPT_ABORT => {
                    reply_option(&mut self.writer, OPT_ABORT, REP_ACK, &[])?;
                    return Ok(Negotiated::Aborted);
                }
                OPT_LIST => self.list(&option)?,
                OPT_INFO | OPT_GO => {
                    if self.info(&option)? && option.number == OPT_GO {
                        return Ok(Negotiated::Transmission);
                    }
                }
                other => reply_option(&mut self.writer, other, REP_ERR_UNSUP, &[])?,
            }
        }
    }

    /// The old way in: no answer for a wrong name but to hang up.
    fn export_name(&mut self, option: &ClientOption, no_zeroes: bool) -> io::Result<Negotiated> {
        if !option.data.is_empty() {
            return Err(invalid("no export of that name"));
        }
        let mut answer = self.disk.size().to_be_bytes().to_vec();
        answer.extend(self.export_flags().to_be_bytes());
        if !no_zeroes {
            answer.resize(answer.len() + 124, 0);
        }
        self.writer.write_all(&answer)?;
        Ok(Negotiated::Transmission)
    }

    fn list(&mut self, option: &ClientOption) -> io::Result<()> {
        if !option.data.is_empty() {
            return reply_option(&mut self.writer, OPT_LIST, REP_ERR_INVALID, &[]);
        }
        reply_option(&mut self.writer, OPT_LIST, REP_SERVER, &0u32.to_be_bytes())?;
        reply_option(&mut self.writer, OPT_LIST, REP_ACK, &[])
    }

    /// Answers INFO and GO; true if the export was acknowledged.
    fn info(&mut self, option: &ClientOption) -> io::Result<bool> {
        let refusal = match option.export_name() {
            None => Some(REP_ERR_INVALID),
            Some(name) if !name.is_empty() => Some(REP_ERR_UNKNOWN),
            Some(_) => None,
        };
        if let Some(kind) = refusal {
            reply_option(&mut self.writer, option.number, kind, &[])?;
            return Ok(false);
        }
        let mut export = INFO_EXPORT.to_be_bytes().to_vec();
        export.extend(self.disk.size().to_be_bytes());
        export.extend(self.export_flags().to_be_bytes());
        reply_option(&mut self.writer, option.number, REP_INFO, &export)?;
        let mut sizes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [1, 4096, MAX_PAYLOAD] {
            sizes.extend(u32::to_be_bytes(size));
        }
        reply_option(&mut self.writer, option.number, REP_INFO, &sizes)?;
        reply_option(&mut self.writer, option.number, REP_ACK, &[])?;
        Ok(true)
    }

    fn transmit(&mut self) -> io::Result<()> {
        while let Some(request) = Request::read(&mut self.reader)? {
            match request.command {
                CMD_DISCONNECT => return Ok(()),
                CMD_READ => self.read(request)?,
                CMD_WRITE => self.write(request)?,
                _ => {
                    let outcome = self.without_payload(request);
                    self.answer(request, outcome)?;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, request: Request) -> io::Result<()> {
        let outcome = self.check(request).and_then(|()| {
            if request.length > MAX_PAYLOAD {
                return Err(EINVAL);
            }
            let header = reply_header(0, request.cookie);
            self.buffer.clear();
            self.buffer.extend(header);
            self.buffer.resize(header.len() + request.length as usize, 0);
            let data = self.buffer.get_mut(header.len()..).unwrap_or_default();
            self.disk.read_at(data, request.offset).map_err(|error| failed("read", request, &error))
        });
        match outcome {
            Ok(()) => self.writer.write_all(&self.buffer),
            Err(code) => self.writer.write_all(&reply_header(code, request.cookie)),
        }
    }

    fn write(&mut self, request: Request) -> io::Result<()> {
        if request.length > MAX_PAYLOAD {
            return Err(invalid("a write is longer than the announced maximum"));
        }
        self.buffer.resize(request.length as usize, 0);
        self.reader.read_exact(&mut self.buffer)?;
        let outcome = self.check_writable(request).and_then(|()| {
            self.disk
                .write_at(&self.buffer, request.offset)
                .and_then(|()| self.fua(request))
                .map_err(|error| failed("write", request, &error))
        });
        self.answer(request, outcome)
    }

    fn without_payload(&self, request: Request) -> Result<(), u32> {
        let (offset, length) = (request.offset, u64::from(request.length));
        let done = match request.command {
            CMD_FLUSH => self.disk.flush(),
            CMD_TRIM => {
                self.check_writable(request)?;
                self.disk.discard(offset, length).and_then(|()| self.fua(request))
            }
            CMD_WRITE_ZEROES => {
                self.check_writable(request)?;
                let keep = request.flags & FLAG_NO_HOLE != 0;
                self.disk.write_zeroes(offset, length, keep).and_then(|()| self.fua(request))
            }
            _ => return Err(EINVAL),
        };
        done.map_err(|error| failed("command", request, &error))
    }

    fn fua(&self, request: Request) -> io::Result<()> {
        if request.flags & FLAG_FUA != 0 { self.disk.flush() } else { Ok(()) }
    }

    fn check(&self, request: Request) -> Result<(), u32> {
        let inside = check_range(request.offset, u64::from(request.length), self.disk.size());
        if inside { Ok(()) } else { Err(EINVAL) }
    }

    fn check_writable(&self, request: Request) -> Result<(), u32> {
        if self.disk.read_only() {
            return Err(EPERM);
        }
        let inside = check_range(request.offset, u64::from(request.length), self.disk.size());
        if inside { Ok(()) } else { Err(ENOSPC) }
    }

    fn answer(&mut self, request: Request, outcome: Result<(), u32>) -> io::Result<()> {
        self.writer.write_all(&reply_header(outcome.err().unwrap_or(0), request.cookie))
    }
}

fn failed(what: &str, request: Request, error: &io::Error) -> u32 {
    tracing::warn!(offset = request.offset, length = request.length, %error, "disk {what} failed");
    match error.raw_os_error() {
        Some(nix::libc::ENOSPC | nix::libc::EDQUOT) => ENOSPC,
        _ if error.kind() == io::ErrorKind::StorageFull => ENOSPC,
        _ if error.kind() == io::ErrorKind::PermissionDenied => EPERM,
        _ => EIO,
    }
}
