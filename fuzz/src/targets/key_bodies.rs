//! Every other request body of the key service: the first byte says which.

use key_service::check;
use key_service::http::request::parse;
use public_api::key_operations::{KeyBackup, KeyOperationParameters, KeySignParameters, KeyVerifyParameters};
use public_api::keys::KeyReleaseParameters;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Target;
use crate::support::in_mode;

pub(crate) const TARGET: Target = Target {
    name: "key_bodies",
    run,
    seeds,
    words: &[
        b"\"kty\":\"",
        b"\"alg\":\"A256GCM\"",
        b"\"value\":\"",
        b"\"iv\":\"",
        b"\"tag\":\"",
        b"\"aad\":\"",
        b"\"digest\":\"",
        b"\"target\":\"",
        b"\"enc\":\"RSA_AES_KEY_WRAP_384\"",
        b"\"nonce\":\"",
        b"\"lifetimeActions\":[",
        b"\"trigger\":{\"timeAfterCreate\":\"P30D\"}",
        b"\"action\":{\"type\":\"Rotate\"}",
        b"\"expiryTime\":\"P90D\"",
        b"\"attributes\":{",
        b"\"release_policy\":{\"data\":\"",
        b"\"count\":",
    ],
    max_len: 4096,
};

const NOW: i64 = 1_800_000_000;
const BODIES: [&str; 9] = [
    r#"{"kty":"EC-HSM","crv":"P-384","key_ops":["sign"],"tags":{"a":"b"},"attributes":{"enabled":true,"nbf":1,"exp":2}}"#,
    r#"{"key_ops":["verify"],"attributes":{"exp":2},"tags":{},"release_policy":{"data":"e30","immutable":true}}"#,
    r#"{"lifetimeActions":[{"trigger":{"timeBeforeExpiry":"P1M"},"action":{"type":"Notify"}}],"attributes":{"expiryTime":"P1Y"}}"#,
    r#"{"count":32}"#,
    r#"{"target":"eyJ.eyJ.x","nonce":"n","enc":"CKM_RSA_AES_KEY_WRAP"}"#,
    r#"{"alg":"A128GCM","value":"AAAA","iv":"AAAAAAAAAAAAAAAA","tag":"AAAA","aad":"AAAA"}"#,
    r#"{"alg":"ES256","value":"AAAA"}"#,
    r#"{"alg":"PS512","digest":"AAAA","value":"AAAA"}"#,
    r#"{"value":"AAAA"}"#,
];

fn run(input: &[u8]) {
    let Some((mode, body)) = input.split_first() else { return };
    match mode {
        0 => create(body),
        1 => drop(check::update(body)),
        2 => {
            if let Ok(Some(expires)) = check::rotation_policy(body, NOW) {
                assert!(expires >= NOW + 28 * 86_400, "a version lives four weeks at least");
            }
        }
        3 => {
            if let Ok(count) = check::random(body) {
                assert!((1..=128).contains(&count));
            }
        }
        4 => same_when_written_again::<KeyReleaseParameters>(body),
        5 => same_when_written_again::<KeyOperationParameters>(body),
        6 => same_when_written_again::<KeySignParameters>(body),
        7 => same_when_written_again::<KeyVerifyParameters>(body),
        _ => same_when_written_again::<KeyBackup>(body),
    }
}

fn create(body: &[u8]) {
    let Ok(key) = check::create(body) else { return };
    assert!(!key.key_ops.is_empty(), "a key can do something");
    assert_eq!(key.exportable, key.has_policy, "exportable keys have a policy, and no others");
    assert!(!key.exportable || key.kty.ends_with("-HSM"));
}

/// What was read is what is read of its own writing.
fn same_when_written_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8]) {
    let Ok(read) = parse::<T>(body) else { return };
    let written = serde_json::to_vec(&read).expect("a body has only string keys");
    assert_eq!(parse::<T>(&written).expect("its own writing"), read);
}

fn seeds() -> Vec<Vec<u8>> {
    BODIES.into_iter().zip(0..).map(|(body, mode)| in_mode(mode, body.as_bytes())).collect()
}
