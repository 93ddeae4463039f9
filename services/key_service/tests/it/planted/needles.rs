//! Finding a secret in bytes, whole or in part, in every way in which programs write bytes.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Bytes of a secret that are looked for together: a part of a key is found, too.
const PART: usize = 16;
/// By so many bytes at its start a needle is found.
const HEAD: usize = 8;

/// A part of a secret, as it may be written.
struct Needle {
    /// Of what, and how.
    what: String,
    bytes: Vec<u8>,
}

/// What is looked for.
#[derive(Default)]
pub struct Needles(HashMap<[u8; HEAD], Vec<Needle>>);

impl Needles {
    /// Adds a secret in every encoding.
    pub fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= PART, "{name} is too short to be told from chance");
        for part in secret.chunks_exact(PART) {
            for (encoding, bytes) in encodings(part) {
                let head = bytes[..HEAD].try_into().expect("longer than a head");
                let what = format!("{name}, {encoding}");
                self.0.entry(head).or_default().push(Needle { what, bytes });
            }
        }
    }

    /// What of it is in `bytes`.
    pub fn found(&self, bytes: &[u8]) -> Vec<&str> {
        let mut found = Vec::new();
        for at in 0..bytes.len().saturating_sub(HEAD - 1) {
            let head: [u8; HEAD] = bytes[at..at + HEAD].try_into().expect("as long as a head");
            let needles = self.0.get(&head).into_iter().flatten();
            found.extend(needles.filter(|needle| bytes[at..].starts_with(&needle.bytes)));
        }
        found.into_iter().map(|needle| needle.what.as_str()).collect()
    }
}

/// Every way of writing a part.
fn encodings(part: &[u8]) -> Vec<(String, Vec<u8>)> {
    let numbers = |separator: &str| {
        let numbers: Vec<String> = part.iter().map(u8::to_string).collect();
        numbers.join(separator)
    };
    let mut all = vec![
        ("raw".to_owned(), part.to_vec()),
        ("reversed".to_owned(), part.iter().rev().copied().collect()),
        ("hex".to_owned(), hex::encode(part).into_bytes()),
        ("upper hex".to_owned(), hex::encode_upper(part).into_bytes()),
        ("a list of numbers".to_owned(), numbers(", ").into_bytes()),
        ("a JSON list".to_owned(), numbers(",").into_bytes()),
    ];
    for before in 0..3 {
        all.push((format!("base64 at {before}"), base64_at(&STANDARD_NO_PAD, before, part)));
        all.push((format!("base64url at {before}"), base64_at(&URL_SAFE_NO_PAD, before, part)));
    }
    all
}

/// The characters that a part has by itself, if `before` bytes stand before it in its group of three.
fn base64_at(alphabet: &impl base64::Engine, before: usize, part: &[u8]) -> Vec<u8> {
    let text = alphabet.encode([&vec![0; before], part].concat());
    let (first, end) = ((before * 8).div_ceil(6), (before + part.len()) * 8 / 6);
    text.as_bytes()[first..end].to_vec()
}

/// A copy of each secret in each encoding is found, at any place in its surroundings; nothing is found where it is not.
#[test]
fn a_plain_copy_is_found_in_each_encoding() {
    let secret: Vec<u8> = (0..100_u8).map(|number| number.wrapping_mul(151).wrapping_add(89)).collect();
    let mut needles = Needles::default();
    needles.add("secret", &secret);
    let has = |bytes: &[u8], encoding: &str| {
        let found = needles.found(bytes);
        assert!(found.iter().any(|what| *what == format!("secret, {encoding}")), "{encoding}: {found:?}");
    };
    for before in 0..7 {
        let within = [&vec![7; before], secret.as_slice(), &[9; 5]].concat();
        has(&within, "raw");
        has(hex::encode(&within).as_bytes(), "hex");
        has(hex::encode_upper(&within).as_bytes(), "upper hex");
        has(format!("{within:?}").as_bytes(), "a list of numbers");
        has(serde_json::to_string(&within).unwrap().as_bytes(), "a JSON list");
        has(&within.iter().rev().copied().collect::<Vec<u8>>(), "reversed");
        // The parts lie in turn at all three places of a group, so each is met.
        for place in 0..3 {
            has(STANDARD_NO_PAD.encode(&within).as_bytes(), &format!("base64 at {place}"));
            has(URL_SAFE_NO_PAD.encode(&within).as_bytes(), &format!("base64url at {place}"));
        }
    }
    has(&secret[20..60], "raw");
    assert_eq!(needles.found(&secret[1..PART]), [""; 0]);
    assert_eq!(needles.found(&[0; 4096]), [""; 0]);
    assert_eq!(needles.found(b""), [""; 0]);
}
