//! The TPM as QEMU's `-tpmdev emulator` reaches it: a control connection, and a data socket that is handed over
//! (QEMU `docs/specs/tpm.rst`).

use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

const INIT: u32 = 0x02;
const SET_DATA_FD: u32 = 0x10;

/// A connected TPM.
pub struct EmulatedTpm {
    control: UnixStream,
    data: UnixStream,
}

impl EmulatedTpm {
    /// Connects and hands the data socket over.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let control = UnixStream::connect(socket)?;
        let (data, theirs) = UnixStream::pair()?;
        let command = SET_DATA_FD.to_be_bytes();
        let descriptors = [theirs.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(control.as_raw_fd(), &[IoSlice::new(&command)], &rights, MsgFlags::empty(), None)?;
        done(&control)?;
        Ok(Self { control, data })
    }

    /// Power on.
    pub fn init(&self) -> io::Result<()> {
        (&self.control).write_all(&[INIT.to_be_bytes(), [0; 4]].concat())?;
        done(&self.control)
    }

    /// Runs a command.
    pub fn command(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        (&self.data).write_all(command)?;
        let mut response = vec![0; 10];
        (&self.data).read_exact(&mut response)?;
        let [_, _, a, b, c, d, ..] = response[..] else { unreachable!("ten bytes") };
        response.resize(u32::from_be_bytes([a, b, c, d]).max(10) as usize, 0);
        (&self.data).read_exact(&mut response[10..])?;
        Ok(response)
    }
}

/// Reads the result of a control command.
fn done(mut control: &UnixStream) -> io::Result<()> {
    let mut result = [0; 4];
    control.read_exact(&mut result)?;
    match u32::from_be_bytes(result) {
        0 => Ok(()),
        code => Err(io::Error::other(format!("the TPM's control channel answered {code:#x}"))),
    }
}
