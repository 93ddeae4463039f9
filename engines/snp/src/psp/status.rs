//! Status codes of the firmware that a software secure processor can give (ABI table "Status Codes").

/// The guest context is not in the state that the command needs.
pub const INVALID_GUEST_STATE: u32 = 0x02;
/// A length is wrong.
pub const INVALID_LENGTH: u32 = 0x04;
/// The guest policy cannot be honoured here.
pub const POLICY_FAILURE: u32 = 0x07;
/// An address is not aligned.
pub const INVALID_ADDRESS: u32 = 0x09;
/// A signature of the ID block is wrong.
pub const BAD_SIGNATURE: u32 = 0x0A;
/// The launch digest is not the ID block's.
pub const BAD_MEASUREMENT: u32 = 0x0B;
/// No such guest context.
pub const INVALID_GUEST: u32 = 0x0F;
/// Not a command.
pub const INVALID_COMMAND: u32 = 0x10;
/// A parameter is out of its range.
pub const INVALID_PARAM: u32 = 0x16;
/// No context is free.
pub const RESOURCE_LIMIT: u32 = 0x17;
/// A page was loaded before.
pub const INVALID_PAGE_STATE: u32 = 0x1A;
/// The asked-for key is not there.
pub const INVALID_KEY: u32 = 0x27;
