//! HTTP/1.1 over a stream, as much as one request and one answer of JSON need: no keep-alive, no chunks.

use std::io::{self, Read, Write};

use serde_json::Value;

const MAX_HEAD: usize = 8 << 10;
const MAX_BODY: usize = 64 << 10;
const MAX_HEADERS: usize = 32;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// What follows the head, as long as `Content-Length` says.
    pub body: Vec<u8>,
}

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The stream ended or took too long.
    #[error("the request did not come whole")]
    Io(#[source] io::Error),
    /// No HTTP, or more headers than a request needs.
    #[error("this is no HTTP/1.1 request")]
    Head,
    /// Longer than anything that is asked here.
    #[error("the request is longer than {MAX_BODY} bytes")]
    TooLong,
    /// The body's length is not told by `Content-Length` alone.
    #[error("the body's length must be in one Content-Length header")]
    Length,
}

impl RequestError {
    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Io(_) => 408,
            Self::Head => 400,
            Self::TooLong => 413,
            Self::Length => 411,
        }
    }
}

impl Request {
    /// Reads one.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn read(from: &mut impl Read) -> Result<Self, RequestError> {
        let mut bytes = Vec::new();
        let (mut request, head, length) = loop {
            if let Some(parsed) = parse(&bytes)? {
                break parsed;
            }
            if bytes.len() >= MAX_HEAD {
                return Err(RequestError::TooLong);
            }
            more(from, &mut bytes)?;
        };
        while bytes.len() < head + length {
            more(from, &mut bytes)?;
        }
        request.body = bytes.get(head..head + length).unwrap_or_default().to_vec();
        Ok(request)
    }
}

fn more(from: &mut impl Read, bytes: &mut Vec<u8>) -> Result<(), RequestError> {
    let mut some = [0; 4096];
    let read = from.read(&mut some).map_err(RequestError::Io)?;
    if read == 0 {
        return Err(RequestError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    bytes.extend_from_slice(some.get(..read).unwrap_or_default());
    Ok(())
}

/// The request without its body, the head's length and the body's; `None` while the head is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize, usize)>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(bytes).map_err(|_| RequestError::Head)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(head) => head,
    };
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Err(RequestError::Head) };
    let request = Request { method: method.to_owned(), target: target.to_owned(), body: Vec::new() };
    let length = body_length(parsed.headers)?;
    if length > MAX_BODY {
        return Err(RequestError::TooLong);
    }
    Ok(Some((request, head, length)))
}

fn body_length(headers: &[httparse::Header<'_>]) -> Result<usize, RequestError> {
    let named =
        |name: &'static str| headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    let mut lengths = named("content-length");
    let first = lengths.next();
    if lengths.next().is_some() || named("transfer-encoding").next().is_some() {
        return Err(RequestError::Length);
    }
    let Some(header) = first else { return Ok(0) };
    let text = std::str::from_utf8(header.value).map_err(|_| RequestError::Length)?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or(RequestError::Length)
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// JSON.
    pub body: Value,
}

impl Response {
    /// Writes it in one call.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let body = self.body.to_string();
        let reason = match self.status {
            200 => "OK",
            400..500 => "Refused",
            _ => "Failed",
        };
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.status,
            body.len()
        );
        to.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        to.flush()
    }
}
