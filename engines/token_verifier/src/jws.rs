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

/// A token taken apart, not verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Unverified<'a> {
    /// The protected header.
    pub header: ProtectedHeader,
    /// The payload.
    pub claims: Map<String, Value>,
    /// What is signed: the first two parts with their dot.
    pub signed: &'a str,
    /// The signature, base64url.
    pub signature: &'a str,
}

/// Takes a token apart.
pub fn parse(token: &str) -> Result<Unverified<'_>, JwsError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Parts)?;
    let (header, payload) = signed.split_once('.').ok_or(JwsError::Parts)?;
    if payload.contains('.') {
        return Err(JwsError::Parts);
    }
    decoded(signature, "signature")?;
    let header = serde_json::from_slice(&decoded(header, "header")?).map_err(|_| JwsError::Json("header"))?;
    let claims =
        serde_json::from_slice(&decoded(payload, "payload")?).map_err(|_| JwsError::Json("payload"))?;
    Ok(Unverified { header, claims, signed, signature })
}

fn decoded(part: &str, name: &'static str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Base64(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn encoded(text: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    #[test]
    fn what_is_not_a_jws_is_refused_with_the_part() {
        let (header, payload) = (encoded(r#"{"alg":"RS256"}"#), encoded("{}"));
        let cases = [
            (String::new(), JwsError::Parts),
            (format!("{header}.{payload}"), JwsError::Parts),
            (format!("{header}.{payload}.AA.AA"), JwsError::Parts),
            (format!("{header}.{payload}.*"), JwsError::Base64("signature")),
            (format!("{header}=.{payload}.AA"), JwsError::Base64("header")),
            (format!("{header}.{payload} .AA"), JwsError::Base64("payload")),
            (format!("{header}.{payload}.A+"), JwsError::Base64("signature")),
            (format!("{}.{payload}.AA", encoded("{}")), JwsError::Json("header")),
            (format!("{}.{payload}.AA", encoded(r#"{"alg":7}"#)), JwsError::Json("header")),
            (format!("{header}.{}.AA", encoded("[]")), JwsError::Json("payload")),
            (format!("{header}.{}.AA", encoded("{} {}")), JwsError::Json("payload")),
            (format!("{header}.{}.AA", encoded([0xFF])), JwsError::Json("payload")),
        ];
        for (token, error) in cases {
            assert_eq!(parse(&token), Err(error), "{token}");
        }
    }

    #[test]
    fn json_nested_without_end_is_refused_not_followed() {
        let deep = format!(r#"{{"a":{}"#, "[".repeat(100_000));
        let token = format!("{}.{}.AA", encoded(r#"{"alg":"RS256"}"#), encoded(deep));
        assert_eq!(parse(&token), Err(JwsError::Json("payload")));
    }

    /// JSON-like text, so that parsing gets further than with random bytes.
    fn json_like() -> impl Strategy<Value = String> {
        r#"(\{|\}|\[|\]|"alg"|"kid"|"crit"|"RS256"|"iss"|:|,|1|null|1e999|\\u0000|"\\ud800"){0,24}"#
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(token: String) {
            let _ = parse(&token);
        }

        #[test]
        fn any_bytes_in_three_parts_parse_or_are_refused(header: Vec<u8>, payload: Vec<u8>, signature: Vec<u8>) {
            let token = format!("{}.{}.{}", encoded(header), encoded(payload), encoded(signature));
            let _ = parse(&token);
        }

        #[test]
        fn any_json_like_parts_parse_or_are_refused(header in json_like(), payload in json_like()) {
            let _ = parse(&format!("{}.{}.AA", encoded(header), encoded(payload)));
        }

        #[test]
        fn what_was_written_is_read(alg: String, kid: Option<String>, name: String, value: i64) {
            let header = json!({"alg": alg, "kid": kid}).to_string();
            let payload = json!({name.clone(): value}).to_string();
            let token = format!("{}.{}.", encoded(header), encoded(payload));
            let parsed = parse(&token).unwrap();
            prop_assert_eq!(parsed.header, ProtectedHeader { alg, kid, crit: None });
            prop_assert_eq!(parsed.claims.get(&name), Some(&json!(value)));
        }

        #[test]
        fn a_changed_character_never_reads_as_the_same_token(at in 0..60_usize, to in "[A-Za-z0-9_.-]") {
            let token = format!("{}.{}.AAAA", encoded(r#"{"alg":"RS256","kid":"k"}"#), encoded(r#"{"iss":"a"}"#));
            let at = at % token.len();
            let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
            prop_assume!(changed != token && at < token.len() - 4);
            let content = |token: &str| parse(token).ok().map(|parsed| (parsed.header, parsed.claims));
            prop_assert_ne!(content(&changed), content(&token));
        }
    }
}
