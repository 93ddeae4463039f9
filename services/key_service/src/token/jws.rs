//! The parts of a compact JWS (RFC 7515 section 3.1) that are looked at before its signature is checked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Why a text is not a JWS with a JSON object in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not three parts.
    #[error("not three parts with dots between them")]
    Parts,
    /// A part is not base64url without padding.
    #[error("the {0} is not base64url without padding")]
    Base64(&'static str),
    /// A part is not a JSON object.
    #[error("the {0} is not a JSON object of the expected form")]
    Json(&'static str),
}

/// The members of the protected header that matter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ProtectedHeader {
    /// Signature algorithm.
    pub alg: String,
    /// Key id.
    #[serde(default)]
    pub kid: Option<String>,
    /// Extensions that must be understood.
    #[serde(default)]
    pub crit: Option<Value>,
}

/// Header and payload of a token, not verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Unverified {
    /// The protected header.
    pub header: ProtectedHeader,
    /// The payload.
    pub claims: Map<String, Value>,
}

/// Takes a token apart.
pub fn parse(token: &str) -> Result<Unverified, JwsError> {
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(JwsError::Parts);
    };
    decoded(signature, "signature")?;
    let header = serde_json::from_slice(&decoded(header, "header")?).map_err(|_| JwsError::Json("header"))?;
    let claims =
        serde_json::from_slice(&decoded(payload, "payload")?).map_err(|_| JwsError::Json("payload"))?;
    Ok(Unverified { header, claims })
}

fn decoded(part: &str, name: &'static str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Base64(name))
}
