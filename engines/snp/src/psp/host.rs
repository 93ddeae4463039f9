//! The host's channel: launch a guest, decommission it, ask for the platform's status.

use std::io::{self, Read, Write};

use crate::launch::PageType;
use crate::psp::frame::{self, Fields, FrameError, Message};
use crate::report::FirmwareVersion;
use crate::tcb::TcbBytes;

const START: u8 = 0x01;
const UPDATE: u8 = 0x02;
const FINISH: u8 = 0x03;
const DECOMMISSION: u8 = 0x04;
const STATUS: u8 = 0x05;
const ANSWER: u8 = 0x80;
const ERROR: u8 = 0xFF;

/// ID block and ID authentication page of SNP_LAUNCH_FINISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdBlock {
    /// The 96 bytes of the ID block.
    pub block: [u8; 96],
    /// The 4,096 bytes of the ID authentication information.
    pub auth: Box<[u8; 4096]>,
    /// AUTH_KEY_EN: the author key's part is present.
    pub author_key: bool,
}

/// What the host may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRequest {
    /// A new guest context with this policy.
    LaunchStart {
        /// POLICY.
        policy: u64,
    },
    /// Load and measure pages.
    LaunchUpdate {
        /// Of [`HostResponse::Started`].
        context: u64,
        /// Type of all pages.
        page_type: PageType,
        /// Address of the first.
        gpa: u64,
        /// Whole pages.
        data: Vec<u8>,
    },
    /// Close the measurement; the guest may run.
    LaunchFinish {
        /// Of [`HostResponse::Started`].
        context: u64,
        /// HOST_DATA.
        host_data: [u8; 32],
        /// The guest owner's signed expectation.
        id_block: Option<Box<IdBlock>>,
    },
    /// Forget a guest.
    Decommission {
        /// Of [`HostResponse::Started`].
        context: u64,
    },
    /// SNP_PLATFORM_STATUS.
    PlatformStatus,
}

impl HostRequest {
    /// Writes the request.
    ///
    /// # Errors
    /// Those of the stream, and `InvalidInput` for more than 16 MiB.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        frame::write(self.message(), to)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn read(from: &mut impl Read) -> Result<Self, FrameError> {
        Self::of(&frame::read(from)?)
    }

    /// A request from what stood behind its length field.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        Self::of(&Message::decode(frame)?)
    }

    fn message(&self) -> Message {
        let (opcode, body) = match self {
            Self::LaunchStart { policy } => (START, policy.to_le_bytes().to_vec()),
            Self::LaunchUpdate { context, page_type, gpa, data } => {
                let mut body = Vec::with_capacity(data.len() + 17);
                body.extend(context.to_le_bytes());
                body.push(*page_type as u8);
                body.extend(gpa.to_le_bytes());
                body.extend_from_slice(data);
                (UPDATE, body)
            }
            Self::LaunchFinish { context, host_data, id_block } => {
                let mut body = context.to_le_bytes().to_vec();
                body.extend(host_data);
                body.push(u8::from(id_block.is_some()));
                if let Some(id) = id_block {
                    body.push(u8::from(id.author_key));
                    body.extend(id.block);
                    body.extend(id.auth.iter());
                }
                (FINISH, body)
            }
            Self::Decommission { context } => (DECOMMISSION, context.to_le_bytes().to_vec()),
            Self::PlatformStatus => (STATUS, Vec::new()),
        };
        Message { opcode, body }
    }

    fn of(message: &Message) -> Result<Self, FrameError> {
        let mut fields = Fields::new(message.opcode, &message.body);
        let request = match message.opcode {
            START => Self::LaunchStart { policy: fields.u64("policy")? },
            UPDATE => {
                let context = fields.u64("context")?;
                let page_type = fields.u8("page type")?;
                let page_type = PageType::from_byte(page_type).ok_or(fields.error("page type"))?;
                let gpa = fields.u64("gpa")?;
                Self::LaunchUpdate { context, page_type, gpa, data: fields.rest().to_vec() }
            }
            FINISH => Self::LaunchFinish {
                context: fields.u64("context")?,
                host_data: fields.array("host data")?,
                id_block: id_block(&mut fields)?,
            },
            DECOMMISSION => Self::Decommission { context: fields.u64("context")? },
            STATUS => Self::PlatformStatus,
            opcode => return Err(FrameError::Opcode { opcode }),
        };
        fields.end()?;
        Ok(request)
    }
}

fn flag(fields: &mut Fields<'_>, what: &'static str) -> Result<bool, FrameError> {
    match fields.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(fields.error(what)),
    }
}

fn id_block(fields: &mut Fields<'_>) -> Result<Option<Box<IdBlock>>, FrameError> {
    if !flag(fields, "id block flag")? {
        return Ok(None);
    }
    let author_key = flag(fields, "author key flag")?;
    let block = fields.array("id block")?;
    let auth = Box::new(fields.array("id authentication information")?);
    Ok(Some(Box::new(IdBlock { block, auth, author_key })))
}

/// The platform as SNP_PLATFORM_STATUS shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformStatus {
    /// ABI and build.
    pub version: FirmwareVersion,
    /// Guest contexts in use.
    pub guests: u32,
    /// Guest contexts in all.
    pub max_guests: u32,
    /// TCB that reports are signed for.
    pub reported_tcb: TcbBytes,
    /// Chip id as in reports.
    pub chip_id: [u8; 64],
}

/// What the processor answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostResponse {
    /// To [`HostRequest::LaunchStart`].
    Started {
        /// Names the guest from now on.
        context: u64,
    },
    /// To [`HostRequest::LaunchUpdate`].
    Updated,
    /// To [`HostRequest::LaunchFinish`].
    Finished {
        /// MEASUREMENT of the guest's reports.
        launch_digest: [u8; 48],
        /// Path of the guest's channel.
        guest_socket: String,
    },
    /// To [`HostRequest::Decommission`].
    Decommissioned,
    /// To [`HostRequest::PlatformStatus`].
    Status(PlatformStatus),
    /// Refused.
    Error {
        /// One of [`crate::psp::status`].
        code: u32,
        /// For people.
        message: String,
    },
}

impl HostResponse {
    /// Writes the answer.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        frame::write(self.message(), to)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn read(from: &mut impl Read) -> Result<Self, FrameError> {
        Self::of(&frame::read(from)?)
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        self.message().encode()
    }

    fn message(&self) -> Message {
        let (opcode, body) = match self {
            Self::Started { context } => (ANSWER | START, context.to_le_bytes().to_vec()),
            Self::Updated => (ANSWER | UPDATE, Vec::new()),
            Self::Finished { launch_digest, guest_socket } => {
                (ANSWER | FINISH, [launch_digest.as_slice(), guest_socket.as_bytes()].concat())
            }
            Self::Decommissioned => (ANSWER | DECOMMISSION, Vec::new()),
            Self::Status(status) => (ANSWER | STATUS, status_body(status)),
            Self::Error { code, message } => {
                (ERROR, [code.to_le_bytes().as_slice(), message.as_bytes()].concat())
            }
        };
        Message { opcode, body }
    }

    fn of(message: &Message) -> Result<Self, FrameError> {
        const STARTED: u8 = ANSWER | START;
        const UPDATED: u8 = ANSWER | UPDATE;
        const FINISHED: u8 = ANSWER | FINISH;
        const DECOMMISSIONED: u8 = ANSWER | DECOMMISSION;
        const STATUS_IS: u8 = ANSWER | STATUS;
        let mut fields = Fields::new(message.opcode, &message.body);
        let response = match message.opcode {
            STARTED => Self::Started { context: fields.u64("context")? },
            UPDATED => Self::Updated,
            FINISHED => Self::Finished {
                launch_digest: fields.array("launch digest")?,
                guest_socket: fields.text("guest socket")?,
            },
            DECOMMISSIONED => Self::Decommissioned,
            STATUS_IS => Self::Status(status_of(&mut fields)?),
            ERROR => Self::Error { code: fields.u32("code")?, message: fields.text("message")? },
            opcode => return Err(FrameError::Opcode { opcode }),
        };
        fields.end()?;
        Ok(response)
    }
}

fn status_body(status: &PlatformStatus) -> Vec<u8> {
    let FirmwareVersion { major, minor, build } = status.version;
    let mut body = vec![major, minor, build];
    body.extend(status.guests.to_le_bytes());
    body.extend(status.max_guests.to_le_bytes());
    body.extend(status.reported_tcb.0);
    body.extend(status.chip_id);
    body
}

fn status_of(fields: &mut Fields<'_>) -> Result<PlatformStatus, FrameError> {
    let [major, minor, build] = fields.array("version")?;
    Ok(PlatformStatus {
        version: FirmwareVersion { major, minor, build },
        guests: fields.u32("guests")?,
        max_guests: fields.u32("max guests")?,
        reported_tcb: TcbBytes(fields.array("reported tcb")?),
        chip_id: fields.array("chip id")?,
    })
}
