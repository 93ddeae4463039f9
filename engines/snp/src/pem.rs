//! PEM as it is met in the field: CR LF, no line feed between two certificates, text around them.

use base64_simd::STANDARD;
use memchr::{memchr_iter, memmem};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Why text is not a list of certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Not UTF-8.
    #[error("the certificate chain is not text")]
    NotText,
    /// BEGIN without END.
    #[error("certificate {index} has no END line")]
    NoEnd {
        /// Counted from 1.
        index: usize,
    },
    /// The body is not base64.
    #[error("certificate {index} is not base64")]
    NotBase64 {
        /// Counted from 1.
        index: usize,
    },
}

/// The DER of every certificate in `text`, in order.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, PemError> {
    let mut rest = std::str::from_utf8(text).map_err(|_| PemError::NotText)?.as_bytes();
    let mut found = Vec::with_capacity(3);
    while let Some((_, after)) = split_at(rest, BEGIN) {
        let index = found.len() + 1;
        let (body, after) = split_at(after, END).ok_or(PemError::NoEnd { index })?;
        found.push(decode(body).ok_or(PemError::NotBase64 { index })?);
        rest = after;
    }
    Ok(found)
}

/// What stands before and after the first `mark`.
fn split_at<'a>(text: &'a [u8], mark: &str) -> Option<(&'a [u8], &'a [u8])> {
    let at = memmem::find(text, mark.as_bytes())?;
    Some((text.get(..at)?, text.get(at + mark.len()..)?))
}

/// Every request brings three certificates: whole lines are copied, and only odd text is looked through byte by byte.
fn decode(body: &[u8]) -> Option<Vec<u8>> {
    let mut base64 = Vec::with_capacity(body.len());
    let mut start = 0;
    for end in memchr_iter(b'\n', body).chain([body.len()]) {
        base64.extend_from_slice(body.get(start..end)?.trim_ascii());
        start = end + 1;
    }
    STANDARD.decode_to_vec(&base64).ok().or_else(|| {
        base64.retain(|byte| !byte.is_ascii_whitespace());
        STANDARD.decode_to_vec(&base64).ok()
    })
}

/// One certificate as PEM with 64 characters a line.
pub(crate) fn encode(der: &[u8]) -> String {
    let body = STANDARD.encode_to_string(der);
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 64);
    text.push_str(BEGIN);
    for (at, c) in body.chars().enumerate() {
        if at % 64 == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text.push('\n');
    text.push_str(END);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str) {
        assert_eq!(certificates(text.as_bytes()), Ok(vec![vec![7; 96]; 2]), "{text:?}");
    }

    #[test]
    fn white_space_of_every_kind_is_passed_over() {
        let text = encode(&[7; 96]).repeat(2);
        accepts(&text);
        accepts(&text.replace('\n', "\r\n"));
        accepts(&text.replace("-----\n-----", "----------"));
        accepts(&text.replace("BwcH", "BwcH "));
        accepts(&text.replace("BwcHBwcHBwcH", "Bw\tcH\r\n\x0cBwcHBwcH"));
        accepts(&text.replace('\n', ""));
        accepts(&format!("subject: somebody\n{text}the end"));
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_its_number() {
        let text = encode(&[7; 96]).repeat(2);
        let refused = |text: String, error| assert_eq!(certificates(text.as_bytes()), Err(error));
        refused(text.replacen("BwcH", "Bw.H", 1), PemError::NotBase64 { index: 1 });
        refused(text.trim_end_matches("-\n").to_owned(), PemError::NoEnd { index: 2 });
        assert_eq!(certificates(&[0xFF]), Err(PemError::NotText));
        assert_eq!(certificates(b""), Ok(Vec::new()));
    }
}
