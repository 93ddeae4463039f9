//! A stream socket over which file descriptors may arrive beside the bytes (SCM_RIGHTS).
#![allow(unsafe_code, reason = "received descriptors come as numbers and are taken into ownership here")]

use std::io::{self, IoSliceMut, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// A control connection and the descriptor that came last over it.
pub struct Channel {
    stream: UnixStream,
    received: Option<OwnedFd>,
}

impl Channel {
    /// Takes over a connected stream.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, received: None }
    }

    /// Fills `buffer`; false if the peer closed the connection before the first byte.
    pub fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.receive(rest)? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => filled += n,
            }
        }
        Ok(true)
    }

    /// Sends all of `bytes`.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The descriptor that came last, once.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.received.take()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut space = cmsg_space!([std::os::fd::RawFd; 4]);
            let mut parts = [IoSliceMut::new(&mut *buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<()>(self.stream.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(descriptors) = control {
                    for descriptor in descriptors {
                        // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
                        self.received = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
                    }
                }
            }
            return Ok(message.bytes);
        }
    }
}
