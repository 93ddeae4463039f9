//! A guest's channel through a serial port of its machine: the messages of [`super::guest`], each with a tag in front.
//!
//! Used on development hosts only, where no guest can reach the processor by itself. A port outlives the programs that
//! use it, so an answer may arrive that another program asked for: the tag (8 bytes, little-endian, chosen by who asks)
//! tells. Requests are short; a longer one ends the connection.

use std::io::{self, Read, Write};

use crate::psp::frame::{FrameError, frame_len};
use crate::psp::guest::{GuestRequest, GuestResponse};

/// The port's name: `/dev/virtio-ports/` and this.
pub const PORT_NAME: &str = "casemate.sev-guest";
/// Most bytes behind a request's length field; the longest request has 97.
pub const MAX_PORT_REQUEST: usize = 128;

/// A request as it came: who asks can be answered even when it is not understood.
#[derive(Debug)]
pub struct PortRequest {
    /// Comes back with the answer.
    pub tag: u64,
    /// What is asked, or why that cannot be said.
    pub request: Result<GuestRequest, FrameError>,
}

/// Writes a request in one call.
///
/// # Errors
/// Those of the stream.
pub fn write_request(tag: u64, request: &GuestRequest, to: &mut impl Write) -> io::Result<()> {
    let mut wire = tag.to_le_bytes().to_vec();
    request.write(&mut wire)?;
    to.write_all(&wire)?;
    to.flush()
}

/// Reads the next request.
///
/// # Errors
/// [`FrameError`] when the stream ended or lost its bounds; what is wrong inside the bounds comes back as the request.
pub fn read_request(from: &mut impl Read) -> Result<PortRequest, FrameError> {
    let mut tag = [0; 8];
    match from.read(&mut tag) {
        Ok(0) => return Err(FrameError::Closed),
        Ok(got) => from.read_exact(tag.get_mut(got..).unwrap_or_default()).map_err(FrameError::Io)?,
        Err(error) => return Err(FrameError::Io(error)),
    }
    let mut field = [0; 4];
    from.read_exact(&mut field).map_err(FrameError::Io)?;
    let len = frame_len(field)?;
    if len > MAX_PORT_REQUEST {
        return Err(FrameError::Length { len: u64::from(u32::from_le_bytes(field)) });
    }
    let mut frame = vec![0; len];
    from.read_exact(&mut frame).map_err(FrameError::Io)?;
    Ok(PortRequest { tag: u64::from_le_bytes(tag), request: GuestRequest::decode(&frame) })
}

/// Writes an answer in one call.
///
/// # Errors
/// Those of the stream.
pub fn write_response(tag: u64, response: &GuestResponse, to: &mut impl Write) -> io::Result<()> {
    to.write_all(&[tag.to_le_bytes().as_slice(), &response.encode()].concat())?;
    to.flush()
}

/// Reads the next answer and its tag.
///
/// # Errors
/// See [`FrameError`].
pub fn read_response(from: &mut impl Read) -> Result<(u64, GuestResponse), FrameError> {
    let mut tag = [0; 8];
    from.read_exact(&mut tag).map_err(FrameError::Io)?;
    Ok((u64::from_le_bytes(tag), GuestResponse::read(from)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::psp::{DerivedKeyRequest, FieldSelect, ReportRequest};

    fn longest() -> GuestRequest {
        GuestRequest::Report(ReportRequest { report_data: [7; 64], vmpl: 1, key_select: 0 })
    }

    fn wire(tag: u64, request: &GuestRequest) -> Vec<u8> {
        let mut wire = Vec::new();
        write_request(tag, request, &mut wire).unwrap();
        wire
    }

    #[test]
    fn requests_and_answers_come_back_with_their_tag() {
        let key = GuestRequest::DerivedKey(DerivedKeyRequest {
            root_key_select: 0,
            field_select: FieldSelect(0),
            vmpl: 1,
            guest_svn: 0,
            tcb_version: 0,
            launch_mit_vector: Some(0),
        });
        for (tag, request) in [(0, longest()), (u64::MAX, key)] {
            let read = read_request(&mut wire(tag, &request).as_slice()).unwrap();
            assert_eq!((read.tag, read.request.unwrap()), (tag, request));
        }
        let answer = GuestResponse::Error { status: 0x16, message: "no".to_owned() };
        let mut written = Vec::new();
        write_response(9, &answer, &mut written).unwrap();
        assert!(read_response(&mut written.as_slice()).unwrap() == (9, answer));
    }

    #[test]
    fn what_is_too_long_ends_the_stream_and_what_is_wrong_does_not() {
        let mut long = wire(1, &longest());
        long[8..12].copy_from_slice(&129_u32.to_le_bytes());
        assert!(matches!(read_request(&mut long.as_slice()), Err(FrameError::Length { len: 129 })));
        long[8..12].copy_from_slice(&0_u32.to_le_bytes());
        assert!(matches!(read_request(&mut long.as_slice()), Err(FrameError::Length { len: 0 })));
        let mut strange = wire(5, &longest());
        strange[12] = 0x77;
        let read = read_request(&mut strange.as_slice()).unwrap();
        assert!(read.tag == 5 && matches!(read.request, Err(FrameError::Opcode { opcode: 0x77 })));
        for cut in 1..strange.len() {
            assert!(matches!(read_request(&mut &strange[..cut]), Err(FrameError::Io(_))), "{cut}");
        }
        assert!(matches!(read_request(&mut &strange[..0]), Err(FrameError::Closed)));
    }
}
