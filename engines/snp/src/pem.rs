//! PEM as it is met in the field: CR LF, no line feed between two certificates, text around them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

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
    let mut rest = std::str::from_utf8(text).map_err(|_| PemError::NotText)?;
    let mut found = Vec::new();
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let index = found.len() + 1;
        let (body, after) = after.split_once(END).ok_or(PemError::NoEnd { index })?;
        let body: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        found.push(STANDARD.decode(body).map_err(|_| PemError::NotBase64 { index })?);
        rest = after;
    }
    Ok(found)
}

/// One certificate as PEM with 64 characters a line.
pub(crate) fn encode(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
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
