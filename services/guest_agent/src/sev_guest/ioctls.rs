//! The three ioctls of `/dev/sev-guest` (Linux `include/uapi/linux/sev-guest.h`), answered as the kernel's driver answers
//! them (`drivers/virt/coco/sev-guest`).
//!
//! An ioctl's argument points to a structure that points to others, which the kernel fetches for us in rounds: each round
//! names all areas anew, and which round it is shows in how much was fetched. Nothing is kept between rounds, so that a
//! caller that changes its structures in between only harms itself.

use snp::psp::{DerivedKeyRequest, FieldSelect, GuestRequest, GuestResponse, ReportRequest, status};

use super::SecureProcessor;
use super::certificates;
use super::wire::{Area, Ioctl, IoctlReply, errno, u32_at, u64_at};

/// `_IOWR('S', 0, struct snp_guest_request_ioctl)`.
pub const GET_REPORT: u32 = 0xC020_5300;
/// `_IOWR('S', 1, ...)`.
pub const GET_DERIVED_KEY: u32 = 0xC020_5301;
/// `_IOWR('S', 2, ...)`.
pub const GET_EXT_REPORT: u32 = 0xC020_5302;

/// `struct snp_guest_request_ioctl`: version, addresses of request and answer, `exitinfo2`.
const CALL: usize = 32;
/// `struct snp_report_req`.
const REPORT_REQ: usize = 96;
/// `struct snp_ext_report_req`.
const EXT_REPORT_REQ: usize = 112;
/// `struct snp_derived_key_req`; longer by the mitigation vector from message version 2 on.
const KEY_REQ: [usize; 2] = [32, 40];
/// `struct snp_report_resp`.
const REPORT_RESP: usize = 4000;
/// `struct snp_derived_key_resp`.
const KEY_RESP: usize = 64;
/// Offset of the report and the key in their answers.
const RESP_HEADER: usize = 32;
/// `SEV_FW_BLOB_MAX_SIZE`.
const MAX_CERTIFICATES: usize = 0x4000;
const PAGE: usize = 4096;
/// `SNP_GUEST_VMM_ERR_INVALID_LEN` in the upper half of `exitinfo2`.
const VMM_INVALID_LEN: u64 = 1 << 32;

/// Carries out one round of an ioctl.
pub fn answer(ioctl: &Ioctl<'_>, processor: &mut dyn SecureProcessor) -> IoctlReply {
    let known = [GET_REPORT, GET_DERIVED_KEY, GET_EXT_REPORT].contains(&ioctl.command);
    if !known || ioctl.compat {
        return failed(errno::ENOTTY);
    }
    let Some(call) = Call::parse(ioctl) else {
        return IoctlReply::Retry {
            fetch: vec![Area { base: ioctl.argument, len: CALL }],
            write: Vec::new(),
        };
    };
    if call.version == 0 {
        return failed(errno::EINVAL);
    }
    let reply = match ioctl.command {
        GET_REPORT => report(ioctl, &call, processor),
        GET_DERIVED_KEY => derived_key(ioctl, &call, processor),
        _ => extended_report(ioctl, &call, processor),
    };
    reply.unwrap_or_else(|| failed(errno::EINVAL))
}

fn failed(errno: i32) -> IoctlReply {
    IoctlReply::Done { result: -errno, data: Vec::new() }
}

/// `struct snp_guest_request_ioctl`, and what was fetched behind it.
struct Call<'a> {
    raw: &'a [u8],
    version: u8,
    request: u64,
    response: u64,
    rest: &'a [u8],
}

impl<'a> Call<'a> {
    fn parse(ioctl: &Ioctl<'a>) -> Option<Self> {
        let (raw, rest) = ioctl.input.split_at_checked(CALL)?;
        Some(Self { raw, version: *raw.first()?, request: u64_at(raw, 8)?, response: u64_at(raw, 16)?, rest })
    }

    /// The structure as it is written back.
    fn with_exit_info(&self, exit_info: u64) -> Vec<u8> {
        let mut raw = self.raw.to_vec();
        raw.truncate(24);
        raw.extend(exit_info.to_le_bytes());
        raw
    }

    fn areas(&self, ioctl: &Ioctl<'_>, request: usize, response: usize) -> IoctlReply {
        let call = Area { base: ioctl.argument, len: CALL };
        IoctlReply::Retry {
            fetch: vec![call, Area { base: self.request, len: request }],
            write: vec![call, Area { base: self.response, len: response }],
        }
    }
}

fn report(ioctl: &Ioctl<'_>, call: &Call<'_>, processor: &mut dyn SecureProcessor) -> Option<IoctlReply> {
    if call.rest.len() != REPORT_REQ || ioctl.out_size != CALL + REPORT_RESP {
        return Some(call.areas(ioctl, REPORT_REQ, REPORT_RESP));
    }
    let answer = match processor.ask(&GuestRequest::Report(report_request(call.rest)?)) {
        Ok(GuestResponse::Report { report }) => done(call, &respond(0, &report, REPORT_RESP)),
        other => unanswered(call, &other, REPORT_RESP),
    };
    Some(answer)
}

fn report_request(bytes: &[u8]) -> Option<ReportRequest> {
    Some(ReportRequest {
        report_data: *bytes.first_chunk()?,
        vmpl: u32_at(bytes, 64)?,
        key_select: u32_at(bytes, 68)?,
    })
}

fn derived_key(
    ioctl: &Ioctl<'_>,
    call: &Call<'_>,
    processor: &mut dyn SecureProcessor,
) -> Option<IoctlReply> {
    let [short, long] = KEY_REQ;
    let expected = if call.version == 1 { short } else { long };
    if call.rest.len() != expected || ioctl.out_size != CALL + KEY_RESP {
        return Some(call.areas(ioctl, expected, KEY_RESP));
    }
    let request = DerivedKeyRequest {
        root_key_select: u32_at(call.rest, 0)?,
        field_select: FieldSelect(u64_at(call.rest, 8)?),
        vmpl: u32_at(call.rest, 16)?,
        guest_svn: u32_at(call.rest, 20)?,
        tcb_version: u64_at(call.rest, 24)?,
        launch_mit_vector: if expected == long { Some(u64_at(call.rest, 32)?) } else { None },
    };
    let answer = match processor.ask(&GuestRequest::DerivedKey(request)) {
        Ok(GuestResponse::DerivedKey { key }) => {
            let mut response = vec![0; RESP_HEADER];
            response.extend(key);
            done(call, &response)
        }
        other => unanswered(call, &other, KEY_RESP),
    };
    Some(answer)
}

/// A report, and the certificates for it in a buffer of the caller, whose size is known after the second round only.
fn extended_report(
    ioctl: &Ioctl<'_>,
    call: &Call<'_>,
    processor: &mut dyn SecureProcessor,
) -> Option<IoctlReply> {
    let areas = call.areas(ioctl, EXT_REPORT_REQ, REPORT_RESP);
    let IoctlReply::Retry { fetch, mut write } = areas else { return None };
    if call.rest.len() != EXT_REPORT_REQ {
        return Some(IoctlReply::Retry { fetch, write: Vec::new() });
    }
    let (address, length) = (u64_at(call.rest, 96)?, u32_at(call.rest, 104)?);
    let length = if address == 0 { 0 } else { usize::try_from(length).ok()? };
    if length > MAX_CERTIFICATES || !length.is_multiple_of(PAGE) {
        return Some(failed(errno::EINVAL));
    }
    if ioctl.out_size != CALL + REPORT_RESP + EXT_REPORT_REQ + length {
        write.push(Area { base: call.request, len: EXT_REPORT_REQ });
        write.extend((length > 0).then_some(Area { base: address, len: length }));
        return Some(IoctlReply::Retry { fetch, write });
    }
    Some(match processor.ask(&GuestRequest::ExtendedReport(report_request(call.rest)?)) {
        Ok(GuestResponse::ExtendedReport { report, certificates_pem }) => {
            match certificates::table(&certificates_pem) {
                Some(table) => with_certificates(call, &report, table, length),
                None => failed(errno::EIO),
            }
        }
        other => unanswered(call, &other, REPORT_RESP),
    })
}

fn with_certificates(call: &Call<'_>, report: &[u8], mut table: Vec<u8>, length: usize) -> IoctlReply {
    let needed = table.len().next_multiple_of(PAGE);
    let fits = needed <= length;
    let mut request = call.rest.to_vec();
    request.truncate(104);
    request.extend(u32::try_from(if fits { length } else { needed }).unwrap_or(u32::MAX).to_le_bytes());
    request.extend([0; 4]);
    if !fits {
        let data = [call.with_exit_info(VMM_INVALID_LEN), vec![0; REPORT_RESP], request].concat();
        return IoctlReply::Done { result: -errno::ENOSPC, data };
    }
    table.resize(length, 0);
    let response = respond(0, report, REPORT_RESP);
    IoctlReply::Done { result: 0, data: [call.with_exit_info(0), response, request, table].concat() }
}

/// `MSG_REPORT_RSP` or `MSG_KEY_RSP`: status, size, reserved bytes, content.
fn respond(status: u32, content: &[u8], size: usize) -> Vec<u8> {
    let mut response = status.to_le_bytes().to_vec();
    response.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    response.resize(RESP_HEADER, 0);
    response.extend(content);
    response.resize(size, 0);
    response
}

fn done(call: &Call<'_>, response: &[u8]) -> IoctlReply {
    IoctlReply::Done { result: 0, data: [call.with_exit_info(0).as_slice(), response].concat() }
}

/// What the firmware refuses stands in its answer; what did not work fails the call.
fn unanswered(call: &Call<'_>, answer: &Result<GuestResponse, super::PortError>, size: usize) -> IoctlReply {
    match answer {
        Ok(GuestResponse::Error { status: code @ (status::INVALID_PARAM | status::INVALID_KEY), .. }) => {
            done(call, &respond(*code, &[], size))
        }
        Ok(GuestResponse::Error { status, .. }) => {
            IoctlReply::Done { result: -errno::EIO, data: call.with_exit_info(u64::from(*status)) }
        }
        _ => failed(errno::EIO),
    }
}
