//! `/dev/sev-guest` on a development host: a character device in user space (CUSE) whose ioctls are those of the
//! kernel's driver, and whose reports come from the host's software secure processor.
//!
//! The kernel's own driver does not load where there is no SEV-SNP, so its name is free; programs that open the device
//! work unmodified. The reports are of VMPL 1 to 3: VMPL 0 is the paravisor's. Their root of trust is a development
//! root, and whoever verifies them sees that.
//!
//! ```text
//! program --ioctl--> kernel --CUSE--> this --virtio-serial--> paravisor --> software secure processor
//! ```

pub mod certificates;
pub mod ioctls;
pub mod port;
pub mod wire;

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use snp::psp::{GuestRequest, GuestResponse};

pub use self::port::{Port, PortError};
use self::wire::{Ioctl, MAX_MESSAGE, Message, errno, opcode};
use crate::failure::Failure;

/// The device's name.
const DEVICE: &str = "sev-guest";

/// What answers the guest's requests.
pub trait SecureProcessor {
    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// See [`PortError`].
    fn ask(&mut self, request: &GuestRequest) -> Result<GuestResponse, PortError>;
}

/// Serves the device until the kernel takes it away.
///
/// # Errors
/// Without CUSE, without the port, or with a `/dev/sev-guest` of the kernel's own.
pub fn run(port: &Path, cuse: &Path) -> Result<(), Failure> {
    let node = Path::new("/dev").join(DEVICE);
    if node.exists() {
        return Err(Failure::you(
            format!("{} is there already", node.display()),
            "on SEV-SNP the kernel serves it; end another `casemate-guest-agent sev-guest` otherwise",
        ));
    }
    if !port.exists() {
        return Err(Failure::you(
            format!("this machine has no {}", port.display()),
            "only VMs on development hosts have this port; on SEV-SNP load the kernel's module `sev-guest`",
        ));
    }
    let mut kernel = open_cuse(cuse)?;
    let mut first_tag = [0; 8];
    aws_lc_rs::rand::fill(&mut first_tag).map_err(|_| Failure::us("drawing random numbers"))?;
    serve(&mut kernel, &mut Port::new(port, u64::from_le_bytes(first_tag)))
}

fn open_cuse(path: &Path) -> Result<File, Failure> {
    if !path.exists() {
        // Whether it helped is seen at the open.
        let _ = Command::new("modprobe").arg("cuse").status();
    }
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|error| {
        Failure::you(
            format!("opening {}", path.display()),
            "run this as root; the kernel needs the module `cuse`",
        )
        .because(error)
    })
}

/// Answers the kernel's messages, one after the other.
fn serve(kernel: &mut File, processor: &mut dyn SecureProcessor) -> Result<(), Failure> {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let read = match kernel.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            // The kernel took the request back before it was read.
            Err(error) if error.raw_os_error() == Some(2) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // ENODEV: the device is gone.
            Err(error) if error.raw_os_error() == Some(19) => return Ok(()),
            Err(error) => return Err(Failure::us("reading from the kernel").because(error)),
        };
        let Some(answer) = respond(buffer.get(..read).unwrap_or_default(), processor) else { continue };
        match kernel.write_all(&answer) {
            // ENOENT: the caller was interrupted and waits no more.
            Err(error) if error.raw_os_error() != Some(2) => {
                return Err(Failure::us("answering the kernel").because(error));
            }
            _ => {}
        }
    }
}

/// The answer to a message, if it gets one.
pub fn respond(message: &[u8], processor: &mut dyn SecureProcessor) -> Option<Vec<u8>> {
    let Message { opcode, unique, body } = Message::parse(message)?;
    match opcode {
        opcode::CUSE_INIT => Some(wire::initialised(unique, DEVICE)),
        opcode::OPEN => Some(wire::opened(unique)),
        opcode::RELEASE | opcode::FLUSH => Some(wire::empty(unique)),
        opcode::INTERRUPT | opcode::DESTROY => None,
        opcode::IOCTL => Some(match Ioctl::parse(body) {
            Some(ioctl) => wire::ioctl(unique, &ioctls::answer(&ioctl, processor)),
            None => wire::error(unique, errno::EIO),
        }),
        _ => Some(wire::error(unique, errno::ENOSYS)),
    }
}
