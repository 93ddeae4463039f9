//! Compact JWS: taking one apart, and that nothing but what was signed verifies.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use crate::Target;
use crate::support::in_mode;
use token_verifier::jws::parse;

pub(crate) const TARGET: Target = Target {
    name: "jws",
    run,
    seeds,
    words: &[
        b"eyJhbGciOiJFUzM4NCJ9",
        b"eyJhbGciOiJub25lIn0",
        b".",
        b"\"alg\":",
        b"\"kid\":",
        b"\"crit\":[",
        b"\"jku\":",
    ],
    max_len: 4096,
};

static KEY: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"));
static DECODING: LazyLock<DecodingKey> = LazyLock::new(|| {
    let (x, y) = KEY.public_key().as_ref()[1..].split_at(48);
    let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
    DecodingKey::from_ec_components(&x, &y).expect("a point")
});

/// Mode 0: a header and a payload with a zero byte between them, signed here. Else: a token.
fn run(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else { return };
    let token = match mode {
        0 => token(bytes),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        },
    };
    let parsed = parse(&token);
    if let Ok(parsed) = &parsed {
        assert_eq!(format!("{}.{}", parsed.signed, parsed.signature), token, "nothing is lost");
        assert_eq!(parsed.signed.matches('.').count(), 1);
    }
    let mut validation = Validation::new(Algorithm::ES384);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.required_spec_claims.clear();
    if let Ok(verified) = jsonwebtoken::decode::<Value>(&token, &DECODING, &validation) {
        assert_eq!(*mode, 0, "the key signed nothing else in this process");
        if let Ok(parsed) = &parsed {
            assert_eq!(verified.claims, Value::Object(parsed.claims.clone()), "both read the same");
            assert_eq!(parsed.header.alg, "ES384");
        }
    }
}

fn token(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let parts =
        [&bytes[..end], bytes.get(end + 1..).unwrap_or_default()].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = parts.join(".");
    let signature = KEY.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn seeds() -> Vec<Vec<u8>> {
    let payload = r#"{"iss":"https://a.example","exp":1770000000,"x-ms-runtime":{"keys":[]}}"#;
    let headers = [
        r#"{"alg":"ES384","kid":"k"}"#,
        r#"{"alg":"ES384","crit":["exp"]}"#,
        r#"{"alg":"none"}"#,
        r#"{"alg":"RS256","jku":"https://b.example","x5c":[]}"#,
    ];
    let bodies = headers.map(|header| [header.as_bytes(), &[0], payload.as_bytes()].concat());
    let unsigned = |token: String| match token.rsplit_once('.') {
        Some((signed, _)) => format!("{signed}.{}", URL_SAFE_NO_PAD.encode([7; 96])),
        None => token,
    };
    let tokens = bodies.iter().map(|body| in_mode(1, unsigned(token(body)).as_bytes()));
    bodies.iter().map(|body| in_mode(0, body)).chain(tokens).collect()
}
