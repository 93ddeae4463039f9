//! Tokens verify under what is published; keys are private, survive restarts, rotate without a gap, and are not mixed up.

use std::os::unix::fs::PermissionsExt as _;

use der::Decode as _;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://127.0.0.1:7301";
const NOW: i64 = 1_800_000_000;

fn claims() -> Claims {
    let claims = json!({"iss": ISSUER, "exp": 4_000_000_000_u64, "x": 1});
    claims.as_object().expect("an object").clone()
}

fn open(directory: &Path, algorithm: TokenAlgorithm) -> Signer {
    Signer::open(directory, ISSUER, algorithm, NOW).expect("opened")
}

fn verified(signer: &Signer, token: &str, now: i64) -> Option<Value> {
    let header = jsonwebtoken::decode_header(token).expect("a header");
    let set = signer.jwk_set(now);
    let jwk = set.keys.iter().find(|jwk| jwk.kid == header.kid)?;
    let (key, algorithm) = match (&jwk.n, &jwk.e, &jwk.x, &jwk.y) {
        (Some(n), Some(e), ..) => (DecodingKey::from_rsa_components(n, e), Algorithm::RS256),
        (_, _, Some(x), Some(y)) => (DecodingKey::from_ec_components(x, y), Algorithm::ES384),
        _ => return None,
    };
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[ISSUER]);
    jsonwebtoken::decode::<Value>(token, &key.expect("a key"), &validation).ok().map(|token| token.claims)
}

#[test]
fn a_token_verifies_under_the_published_key_and_the_certificate() {
    for algorithm in [TokenAlgorithm::RS256, TokenAlgorithm::ES384] {
        let directory = tempfile::tempdir().expect("a directory");
        let signer = open(directory.path(), algorithm);
        let token = signer.sign(&claims(), NOW, NOW + 60).expect("signed");
        assert_eq!(verified(&signer, &token, NOW).expect("verifies")["x"], json!(1));
        let header = jsonwebtoken::decode_header(&token).expect("a header");
        assert_eq!((header.kid.map(|kid| kid.len()), header.typ.as_deref()), (Some(44), Some("JWT")));
        assert_eq!(header.jku.as_deref(), Some("https://127.0.0.1:7301/certs"));
        let jwk = &signer.jwk_set(NOW).keys[0];
        let der = public_api::encoding::from_base64_any(&jwk.x5c[0]).expect("base64");
        let certificate = x509_cert::Certificate::from_der(&der).expect("a certificate");
        assert_eq!(certificate.tbs_certificate().subject().to_string(), format!("CN={ISSUER}"));
        assert_eq!(certificate.tbs_certificate().issuer(), certificate.tbs_certificate().subject());
    }
}

#[test]
fn the_key_is_kept_private_and_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = open(directory.path(), TokenAlgorithm::RS256).jwk_set(NOW);
    let second = open(directory.path(), TokenAlgorithm::RS256).jwk_set(NOW);
    assert_eq!(first, second);
    let mode = std::fs::metadata(directory.path().join("1.key")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn files_of_another_issuer_or_key_are_not_used() {
    let directory = tempfile::tempdir().expect("a directory");
    open(directory.path(), TokenAlgorithm::RS256);
    let again = |issuer| Signer::open(directory.path(), issuer, TokenAlgorithm::RS256, NOW);
    let other = again("https://other.example").err().expect("must be refused");
    assert!(matches!(other, SignerError::OtherIssuer(_)), "{other}");
    let elsewhere = tempfile::tempdir().expect("a directory");
    open(elsewhere.path(), TokenAlgorithm::RS256);
    std::fs::copy(elsewhere.path().join("1.key"), directory.path().join("1.key")).expect("copied");
    assert!(matches!(again(ISSUER).err().expect("must be refused"), SignerError::Stored));
    std::fs::write(directory.path().join("keys.json"), b"nonsense").expect("written");
    assert!(matches!(again(ISSUER).err().expect("must be refused"), SignerError::Stored));
}

#[test]
fn rotation_leaves_no_token_without_its_published_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let signer = open(directory.path(), TokenAlgorithm::RS256);
    let old = signer.sign(&claims(), NOW, NOW + 8 * 3600).expect("signed");
    signer.add_key(TokenAlgorithm::ES384, NOW + PUBLISHED_AHEAD).expect("made");
    assert_eq!(signer.jwk_set(NOW).keys.len(), 2, "the next key is published before it signs");
    assert_eq!(jsonwebtoken::decode_header(&old).expect("a header").alg, Algorithm::RS256);
    let later = NOW + PUBLISHED_AHEAD;
    // The same after a restart.
    let signer = open(directory.path(), TokenAlgorithm::RS256);
    let new = signer.sign(&claims(), later, later + 60).expect("signed");
    assert_eq!(jsonwebtoken::decode_header(&new).expect("a header").alg, Algorithm::ES384);
    for token in [&old, &new] {
        assert!(verified(&signer, token, NOW + 8 * 3600 - 1).is_some());
    }
    assert_eq!(signer.algorithms(later), [TokenAlgorithm::ES384, TokenAlgorithm::RS256]);
    assert!(verified(&signer, &old, NOW + 3 * COVER_STEP).is_none(), "in the end the old key is gone");
}

#[test]
fn a_key_that_has_signed_for_long_is_rotated_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let signer = open(directory.path(), TokenAlgorithm::ES384);
    let due = NOW + ROTATED_AFTER;
    for now in [due - 1, due, due + 1] {
        signer.rotate_if_due(now).expect("rotated");
        assert_eq!(signer.jwk_set(now).keys.len(), if now < due { 1 } else { 2 });
    }
}

#[test]
fn a_key_whose_record_a_crash_swallowed_is_passed_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let signer = open(directory.path(), TokenAlgorithm::ES384);
    key::make(directory.path(), 2, TokenAlgorithm::ES384, ISSUER).expect("made");
    signer.add_key(TokenAlgorithm::ES384, NOW).expect("made beside it");
    assert_eq!(open(directory.path(), TokenAlgorithm::ES384).jwk_set(NOW).keys.len(), 1);
}
