//! How programs talk to a software secure processor.
//!
//! Two channels over Unix sockets: the host's, modelled on the firmware commands SNP_LAUNCH_START, _UPDATE, _FINISH and
//! SNP_DECOMMISSION, and one for each launched guest, whose requests and answers carry the MSG_* payloads of the ABI
//! (chapter 7 "Guest Messages") byte for byte. On silicon those payloads travel encrypted under the guest's VMPCK; here
//! the socket's file permissions take that place, and the socket's caller counts as VMPL 0.
//!
//! A frame is a little-endian u32 length, an opcode byte, a body; the length counts opcode and body. At most 16 MiB.

mod frame;
mod guest;
mod host;
pub mod port;
pub mod status;

pub use frame::{FrameError, MAX_FRAME, frame_len};
pub use guest::{DerivedKeyRequest, FieldSelect, GuestRequest, GuestResponse, ReportRequest};
pub use host::{HostRequest, HostResponse, IdBlock, PlatformStatus};
