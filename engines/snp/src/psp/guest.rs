//! A guest's channel: reports and derived keys (ABI chapter 7, MSG_REPORT_REQ, MSG_KEY_REQ and their answers).

use std::io::{self, Read, Write};

use crate::psp::frame::{self, Fields, FrameError, Message};
use crate::report::REPORT_SIZE;

const KEY_REQ: u8 = 3;
const KEY_RSP: u8 = 4;
const REPORT_REQ: u8 = 5;
const REPORT_RSP: u8 = 6;
/// Ours: on silicon the certificates come from the hypervisor, beside MSG_REPORT_RSP.
const EXTENDED_REQ: u8 = 0x45;
const EXTENDED_RSP: u8 = 0x46;
const ERROR: u8 = 0xFF;

/// MSG_REPORT_REQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRequest {
    /// REPORT_DATA.
    pub report_data: [u8; 64],
    /// VMPL to put into the report; not lower than the caller's.
    pub vmpl: u32,
    /// KEY_SEL: 0 the VLEK if there is one, else the VCEK; 1 VCEK; 2 VLEK.
    pub key_select: u32,
}

/// GUEST_FIELD_SELECT of MSG_KEY_REQ: what is mixed into a derived key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSelect(pub u64);

impl FieldSelect {
    /// Guest policy.
    pub const POLICY: u64 = 1;
    /// Image id of the ID block.
    pub const IMAGE_ID: u64 = 1 << 1;
    /// Family id of the ID block.
    pub const FAMILY_ID: u64 = 1 << 2;
    /// Launch digest.
    pub const MEASUREMENT: u64 = 1 << 3;
    /// GUEST_SVN of the request.
    pub const GUEST_SVN: u64 = 1 << 4;
    /// TCB_VERSION of the request.
    pub const TCB_VERSION: u64 = 1 << 5;
    /// LAUNCH_MIT_VECTOR of the request; message version 2.
    pub const LAUNCH_MIT_VECTOR: u64 = 1 << 6;
    /// Every bit with a meaning.
    pub const ALL: u64 = (1 << 7) - 1;

    /// Whether all bits of `field` are set.
    pub const fn has(self, field: u64) -> bool {
        self.0 & field == field
    }
}

/// MSG_KEY_REQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedKeyRequest {
    /// ROOT_KEY_SELECT: bit 0 is 0 for the chip's key, 1 for the VM root key.
    pub root_key_select: u32,
    /// What is mixed in.
    pub field_select: FieldSelect,
    /// VMPL to mix in; not lower than the caller's.
    pub vmpl: u32,
    /// Guest security version to mix in; not above the guest's.
    pub guest_svn: u32,
    /// TCB to mix in; no component above the committed one.
    pub tcb_version: u64,
    /// Mitigations to mix in; message version 2.
    pub launch_mit_vector: Option<u64>,
}

/// What a guest may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestRequest {
    /// A report.
    Report(ReportRequest),
    /// A report and the certificates for it.
    ExtendedReport(ReportRequest),
    /// A key of the guest's own.
    DerivedKey(DerivedKeyRequest),
}

impl GuestRequest {
    /// A report at VMPL 0, signed with whatever the platform prefers, with its certificates.
    pub const fn extended_report(report_data: [u8; 64]) -> Self {
        Self::ExtendedReport(ReportRequest { report_data, vmpl: 0, key_select: 0 })
    }

    /// Writes the request.
    ///
    /// # Errors
    /// Those of the stream.
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
            Self::Report(request) => (REPORT_REQ, report_req(request)),
            Self::ExtendedReport(request) => (EXTENDED_REQ, report_req(request)),
            Self::DerivedKey(request) => (KEY_REQ, key_req(request)),
        };
        Message { opcode, body }
    }

    fn of(message: &Message) -> Result<Self, FrameError> {
        let mut fields = Fields::new(message.opcode, &message.body);
        let request = match message.opcode {
            REPORT_REQ => Self::Report(report_req_of(&mut fields)?),
            EXTENDED_REQ => Self::ExtendedReport(report_req_of(&mut fields)?),
            KEY_REQ => Self::DerivedKey(key_req_of(&mut fields, message.body.len())?),
            opcode => return Err(FrameError::Opcode { opcode }),
        };
        fields.end()?;
        Ok(request)
    }
}

fn report_req(request: &ReportRequest) -> Vec<u8> {
    let mut body = request.report_data.to_vec();
    body.extend(request.vmpl.to_le_bytes());
    body.extend(request.key_select.to_le_bytes());
    body.extend([0; 24]);
    body
}

fn report_req_of(fields: &mut Fields<'_>) -> Result<ReportRequest, FrameError> {
    let request = ReportRequest {
        report_data: fields.array("report data")?,
        vmpl: fields.u32("vmpl")?,
        key_select: fields.u32("key select")?,
    };
    fields.zeros::<24>("reserved bytes")?;
    Ok(request)
}

fn key_req(request: &DerivedKeyRequest) -> Vec<u8> {
    let mut body = request.root_key_select.to_le_bytes().to_vec();
    body.extend([0; 4]);
    body.extend(request.field_select.0.to_le_bytes());
    body.extend(request.vmpl.to_le_bytes());
    body.extend(request.guest_svn.to_le_bytes());
    body.extend(request.tcb_version.to_le_bytes());
    if let Some(vector) = request.launch_mit_vector {
        body.extend(vector.to_le_bytes());
    }
    body
}

/// Message version 1 has 32 bytes, version 2 has 40.
fn key_req_of(fields: &mut Fields<'_>, len: usize) -> Result<DerivedKeyRequest, FrameError> {
    let root_key_select = fields.u32("root key select")?;
    fields.zeros::<4>("reserved bytes")?;
    Ok(DerivedKeyRequest {
        root_key_select,
        field_select: FieldSelect(fields.u64("guest field select")?),
        vmpl: fields.u32("vmpl")?,
        guest_svn: fields.u32("guest svn")?,
        tcb_version: fields.u64("tcb version")?,
        launch_mit_vector: if len > 32 { Some(fields.u64("launch mitigation vector")?) } else { None },
    })
}

/// What the processor answers.
#[derive(Clone, PartialEq, Eq)]
pub enum GuestResponse {
    /// To [`GuestRequest::Report`].
    Report {
        /// The report.
        report: Vec<u8>,
    },
    /// To [`GuestRequest::ExtendedReport`].
    ExtendedReport {
        /// The report.
        report: Vec<u8>,
        /// VCEK, ASK, ARK.
        certificates_pem: String,
    },
    /// To [`GuestRequest::DerivedKey`]. Secret.
    DerivedKey {
        /// The key.
        key: [u8; 32],
    },
    /// Refused.
    Error {
        /// One of [`crate::psp::status`].
        status: u32,
        /// For people.
        message: String,
    },
}

impl std::fmt::Debug for GuestResponse {
    /// Without the derived key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Report { .. } => f.write_str("Report"),
            Self::ExtendedReport { .. } => f.write_str("ExtendedReport"),
            Self::DerivedKey { .. } => f.write_str("DerivedKey"),
            Self::Error { status, message } => write!(f, "Error({status:#x}: {message})"),
        }
    }
}

impl GuestResponse {
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
            Self::Report { report } => (REPORT_RSP, report_rsp(report)),
            Self::ExtendedReport { report, certificates_pem } => {
                (EXTENDED_RSP, [report_rsp(report).as_slice(), certificates_pem.as_bytes()].concat())
            }
            Self::DerivedKey { key } => (KEY_RSP, [[0; 32].as_slice(), key.as_slice()].concat()),
            Self::Error { status, message } => {
                (ERROR, [status.to_le_bytes().as_slice(), message.as_bytes()].concat())
            }
        };
        Message { opcode, body }
    }

    fn of(message: &Message) -> Result<Self, FrameError> {
        let mut fields = Fields::new(message.opcode, &message.body);
        let response = match message.opcode {
            REPORT_RSP => Self::Report { report: report_rsp_of(&mut fields)? },
            EXTENDED_RSP => Self::ExtendedReport {
                report: report_rsp_of(&mut fields)?,
                certificates_pem: fields.text("certificates")?,
            },
            KEY_RSP => {
                fields.zeros::<32>("status and reserved bytes")?;
                Self::DerivedKey { key: fields.array("derived key")? }
            }
            ERROR => Self::Error { status: fields.u32("status")?, message: fields.text("message")? },
            opcode => return Err(FrameError::Opcode { opcode }),
        };
        fields.end()?;
        Ok(response)
    }
}

/// MSG_REPORT_RSP: status 0, size, 24 reserved bytes, report.
fn report_rsp(report: &[u8]) -> Vec<u8> {
    let size = u32::try_from(report.len()).unwrap_or(u32::MAX);
    let mut body = vec![0; 4];
    body.extend(size.to_le_bytes());
    body.extend([0; 24]);
    body.extend_from_slice(report);
    body
}

fn report_rsp_of(fields: &mut Fields<'_>) -> Result<Vec<u8>, FrameError> {
    fields.zeros::<4>("status")?;
    let size = usize::try_from(fields.u32("report size")?).unwrap_or_default();
    fields.zeros::<24>("reserved bytes")?;
    if size != REPORT_SIZE {
        return Err(fields.error("report size"));
    }
    Ok(fields.array::<REPORT_SIZE>("report")?.to_vec())
}
