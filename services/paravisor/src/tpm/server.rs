//! The VM's TPM as QEMU's `-tpmdev emulator` wants it: a control socket, and a data socket that QEMU hands over.
//!
//! ```text
//!   connect ─► SET_DATAFD ─► STOP, SET_BUFFERSIZE ─► INIT (power on) ─► TPM commands on the data socket
//!                               ▲                                          │
//!                               └──────────── STOP at each reset ──────────┘ SHUTDOWN or a closed socket: power off
//! ```
//! One QEMU at a time; when it goes away the next may connect. Nothing here knows what the commands mean.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::channel::Channel;
use super::engine::BufferSizes;
use super::protocol::{Command, Reply};

/// Longest TPM command taken from a peer; libtpms' own buffer is 4096 bytes.
const MAX_COMMAND: usize = 4096;

/// The TPM behind the sockets.
pub trait TpmDevice: Send {
    /// Power on or reset; false if the TPM cannot be used.
    fn power_on(&mut self) -> bool;
    /// Power off.
    fn power_off(&mut self);
    /// Runs one command and returns the response, also for a TPM without power.
    fn command(&mut self, command: &[u8]) -> Vec<u8>;
    /// Locality of the commands to come.
    fn set_locality(&mut self, locality: u8);
    /// Sets or (0) asks the buffer size.
    fn buffer_sizes(&mut self, wanted: u32) -> BufferSizes;
    /// The `tpmEstablished` bit.
    fn established(&self) -> bool;
    /// Clears it; false if that locality may not.
    fn reset_established(&mut self, locality: u8) -> bool;
}

/// The device, shared by the control and the data thread.
pub type SharedDevice = Arc<Mutex<dyn TpmDevice>>;

/// Serves connections one after the other until the listener is shut down.
pub fn serve(listener: &UnixListener, device: &SharedDevice) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            Err(error) => return Err(error),
        };
        tracing::debug!("a TPM client connected");
        let mut session = Session { channel: Channel::new(stream), device: Arc::clone(device), data: None };
        if let Err(error) = session.run() {
            tracing::warn!(%error, "the TPM's control connection failed");
        }
        session.close();
        tracing::debug!("the TPM client is gone");
    }
}

fn lock(device: &SharedDevice) -> MutexGuard<'_, dyn TpmDevice + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Session {
    channel: Channel,
    device: SharedDevice,
    data: Option<DataChannel>,
}

struct DataChannel {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Session {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let mut number = [0; 4];
            if !self.channel.read_exact(&mut number)? {
                return Ok(());
            }
            let number = u32::from_be_bytes(number);
            let Some(length) = Command::body_length(number) else {
                self.channel.write_all(&Reply::NotOffered.to_bytes())?;
                return Err(io::Error::other(format!("unknown control command {number:#x}")));
            };
            let mut body = vec![0; length];
            if length > 0 && !self.channel.read_exact(&mut body)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let command = Command::parse(number, &body);
            tracing::trace!(?command, "TPM control");
            let reply = self.execute(command)?;
            self.channel.write_all(&reply.to_bytes())?;
            if command == Command::Shutdown {
                return Ok(());
            }
        }
    }

    fn execute(&mut self, command: Command) -> io::Result<Reply> {
        let done = |ok| if ok { Reply::Done } else { Reply::Failed };
        Ok(match command {
            Command::GetCapability => Reply::Capabilities,
            Command::Init => done(lock(&self.device).power_on()),
            Command::Stop | Command::Shutdown => {
                lock(&self.device).power_off();
                Reply::Done
            }
            Command::GetEstablished => Reply::Established(lock(&self.device).established()),
            Command::SetLocality(locality) if locality <= 4 => {
                lock(&self.device).set_locality(locality);
                Reply::Done
            }
            Command::ResetEstablished(locality) => done(lock(&self.device).reset_established(locality)),
            Command::GetConfig => Reply::Config,
            Command::SetBufferSize(wanted) => Reply::Buffer(lock(&self.device).buffer_sizes(wanted)),
            Command::SetDataFd => self.open_data()?,
            Command::SetLocality(_) => Reply::Failed,
            Command::Other(_) => Reply::NotOffered,
        })
    }

    fn open_data(&mut self) -> io::Result<Reply> {
        let Some(descriptor) = self.channel.take_descriptor() else { return Ok(Reply::Failed) };
        self.close_data();
        let stream = UnixStream::from(descriptor);
        let (mut reader, device) = (stream.try_clone()?, Arc::clone(&self.device));
        let thread = std::thread::Builder::new().name("tpm-data".to_owned()).spawn(move || {
            if let Err(error) = relay_commands(&mut reader, &device) {
                tracing::debug!(%error, "the TPM's data connection ended");
            }
            // The session holds the socket too; the peer shall see the end at once.
            let _ = reader.shutdown(Shutdown::Both);
        })?;
        self.data = Some(DataChannel { stream, thread });
        Ok(Reply::Done)
    }

    fn close_data(&mut self) {
        if let Some(data) = self.data.take() {
            // Fails only when the peer has closed already, which ends the thread too.
            let _ = data.stream.shutdown(Shutdown::Both);
            let _ = data.thread.join();
        }
    }

    fn close(&mut self) {
        self.close_data();
        lock(&self.device).power_off();
    }
}

fn relay_commands(stream: &mut UnixStream, device: &SharedDevice) -> io::Result<()> {
    while let Some(command) = read_command(stream)? {
        let response = lock(device).command(&command);
        stream.write_all(&response)?;
    }
    Ok(())
}

/// Reads one command by the size in its header (tag u16, size u32, code u32).
fn read_command(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; 10];
    if let Err(error) = stream.read_exact(&mut header) {
        let end = error.kind() == io::ErrorKind::UnexpectedEof;
        return if end { Ok(None) } else { Err(error) };
    }
    let [_, _, a, b, c, d, ..] = header;
    let size = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(header.len()..=MAX_COMMAND).contains(&size) {
        return Err(io::Error::other(format!("a TPM command claims {size} bytes")));
    }
    let mut command = header.to_vec();
    command.resize(size, 0);
    stream.read_exact(command.get_mut(header.len()..).unwrap_or_default())?;
    Ok(Some(command))
}
