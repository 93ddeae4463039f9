//! Which trace a request belongs to: the client's, if it sends one, else a new one.
//!
//! Source: W3C Trace Context, section 3.2 (`traceparent`). What a client says there names its trace and decides nothing:
//! it is shown in the request's id and handed to whoever exports spans.

use axum::http::{HeaderMap, HeaderValue};

/// The target of the one span of a request. A log is better off without it; an exporter of spans wants it.
pub const SPAN_TARGET: &str = "http_service::request";

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span in it.
    pub span_id: [u8; 8],
    /// Whether the span is recorded.
    pub sampled: bool,
}

/// A place in plain words, for whoever exports spans: trace, span, recorded.
pub type Place = ([u8; 16], [u8; 8], bool);

/// Puts a span below its parent and tells its own place, if it is exported.
pub type Adopt = fn(&tracing::Span, Option<Place>) -> Option<Place>;

impl From<TraceParent> for Place {
    fn from(TraceParent { trace_id, span_id, sampled }: TraceParent) -> Self {
        (trace_id, span_id, sampled)
    }
}

impl From<Place> for TraceParent {
    fn from((trace_id, span_id, sampled): Place) -> Self {
        Self { trace_id, span_id, sampled }
    }
}

impl TraceParent {
    /// From a request; nothing if the header is missing, there twice or malformed.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.to_str().ok()?),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version: [u8; 1] = lower_hex(version)?;
        if version == [0xff] || (version == [0] && parts.next().is_some()) {
            return None;
        }
        let (trace_id, span_id) = (lower_hex(trace)?, lower_hex(span)?);
        let [flags] = lower_hex(flags)?;
        let is_valid = trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }

    /// The place of a new span, in the trace of `parent` if there is one. It is not recorded.
    pub fn new(parent: Option<&Self>) -> Self {
        let mut random = [0; 24];
        aws_lc_rs::rand::fill(&mut random).expect("the system's random generator works after start-up");
        let (trace, span) = random.split_at(16);
        let mut made = Self { trace_id: [0; 16], span_id: [0; 8], sampled: false };
        made.trace_id.copy_from_slice(trace);
        made.span_id.copy_from_slice(span);
        Self { trace_id: parent.map_or(made.trace_id, |parent| parent.trace_id), ..made }
    }

    /// As a header's value.
    pub fn header(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        // The two ends have exactly the length of the ids in hex.
        let written = hex::encode_to_slice(self.trace_id, &mut text[3..35])
            .and_then(|()| hex::encode_to_slice(self.span_id, &mut text[36..52]));
        written.expect("the places are as long as the ids");
        text[54] = if self.sampled { b'1' } else { b'0' };
        HeaderValue::from_bytes(&text).expect("hex and hyphens are a header value")
    }
}

/// Exactly `N` bytes of lower-case hex.
fn lower_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_clients_trace_is_read_and_written_alike() {
        let parsed = TraceParent::parse(GOOD).expect("valid");
        assert!(parsed.sampled);
        assert_eq!(parsed.header(), GOOD);
        assert_eq!(TraceParent::parse(&GOOD.replacen("00-", "01-", 1)), Some(parsed), "a later version");
        assert!(TraceParent::parse(&format!("{}-more", GOOD.replacen("00-", "01-", 1))).is_some());
    }

    #[test]
    fn anything_else_is_no_trace() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let more = format!("{GOOD}-more");
        let upper = GOOD.to_uppercase();
        let future = GOOD.replacen("00-", "ff-", 1);
        for text in ["", "00", &GOOD[..54], zero_trace, zero_span, &more, &upper, &future, "00-zz-00-01"] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
        let mut twice = HeaderMap::new();
        twice.append("traceparent", HeaderValue::from_static(GOOD));
        assert!(TraceParent::of(&twice).is_some());
        twice.append("traceparent", HeaderValue::from_static(GOOD));
        assert_eq!(TraceParent::of(&twice), None);
    }

    #[test]
    fn a_new_place_stays_in_the_trace_and_is_another_one() {
        let parent = TraceParent::parse(GOOD).expect("valid");
        let child = TraceParent::new(Some(&parent));
        assert_eq!(child.trace_id, parent.trace_id);
        assert!(child.span_id != parent.span_id && !child.sampled);
        assert_ne!(TraceParent::new(None).trace_id, TraceParent::new(None).trace_id);
    }
}
