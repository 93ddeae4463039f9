//! Checking a token: algorithm, issuer, key, signature, times. Every failure is a [`Refusal`] that names its reason.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::jwks::{Jwks, JwksError};
use super::jws::{self, Unverified};
use crate::{Refusal, refusal};

/// How far the clocks of two machines may differ, in seconds.
pub const CLOCK_SKEW: i64 = 60;

/// An issuer whose tokens are believed.
pub struct Issuer {
    /// As in `iss`, without a slash at its end.
    name: String,
    keys: Arc<Jwks>,
}

impl Issuer {
    /// An issuer and where its keys are. Issuers that sign with the same keys can share them.
    pub fn new(name: &str, keys: impl Into<Arc<Jwks>>) -> Self {
        Self { name: without_slash(name).to_owned(), keys: keys.into() }
    }

    /// The issuer's name, without a slash at its end.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A token whose signature and times hold. Only [`verify`] makes one.
pub struct VerifiedToken {
    issuer: String,
    claims: Value,
    issued_at: i64,
    expires: i64,
}

impl VerifiedToken {
    /// `iss`, as the token writes it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// All claims: a JSON object.
    pub fn claims(&self) -> &Value {
        &self.claims
    }

    /// `iat`, Unix seconds.
    pub fn issued_at(&self) -> i64 {
        self.issued_at
    }

    /// `exp`, Unix seconds.
    pub fn expires(&self) -> i64 {
        self.expires
    }

    /// A claim that is a string.
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }
}

/// Why a token is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is bad, and this is why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The keys of its issuer are not known at the moment.
    #[error("the signing keys of {issuer} are not available")]
    KeysUnavailable {
        /// The issuer.
        issuer: String,
        /// The cause.
        #[source]
        source: Box<JwksError>,
    },
}

/// Checks `token` at the time `now`. With `max_age`, `iat` must not lie further back.
pub async fn verify(
    issuers: &[Issuer],
    token: &str,
    now: i64,
    max_age: Option<i64>,
) -> Result<VerifiedToken, TokenError> {
    let unverified = jws::parse(token).map_err(malformed)?;
    let kid = checked_header(&unverified)?;
    let issuer = known_issuer(issuers, &unverified)?;
    let unavailable =
        |source| TokenError::KeysUnavailable { issuer: issuer.name.clone(), source: Box::new(source) };
    let key = issuer.keys.key(kid).await.map_err(unavailable)?.ok_or_else(|| unknown_key(issuer, kid))?;
    check_signature(&unverified, &key).ok_or_else(|| bad_signature(issuer, kid))?;
    let claims = unverified.claims;
    let (issued_at, expires) = checked_times(&claims, now, max_age)?;
    let name = claims.get("iss").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(VerifiedToken { issuer: name, claims: Value::Object(claims), issued_at, expires })
}

/// The library checks RS256 over exactly the bytes that the claims were read from.
fn check_signature(token: &Unverified<'_>, key: &DecodingKey) -> Option<()> {
    let verified =
        jsonwebtoken::crypto::verify(token.signature, token.signed.as_bytes(), key, Algorithm::RS256);
    matches!(verified, Ok(true)).then_some(())
}

fn checked_header<'a>(token: &'a Unverified<'_>) -> Result<&'a str, Refusal> {
    let header = &token.header;
    if header.alg != "RS256" {
        let rule = "only asymmetric signatures of the issuer count (RFC 8725 section 3.1)";
        let remedy = "present the token as the attestation service signed it";
        return Err(refusal("TokenAlgorithmRefused", "alg", "RS256", shown(&header.alg), rule, remedy));
    }
    if header.crit.is_some() {
        let rule = "extensions that are not understood are refused (RFC 7515 section 4.1.11)";
        let remedy = "present a token without `crit`";
        return Err(refusal("TokenExtensionRefused", "crit", "none", "present", rule, remedy));
    }
    header.kid.as_deref().ok_or_else(|| missing("kid", "a key id of the issuer"))
}

fn known_issuer<'a>(issuers: &'a [Issuer], token: &Unverified<'_>) -> Result<&'a Issuer, Refusal> {
    let name =
        token.claims.get("iss").and_then(Value::as_str).ok_or_else(|| missing("iss", "a known issuer"))?;
    issuers.iter().find(|issuer| issuer.name == without_slash(name)).ok_or_else(|| {
        let expected = issuers.iter().map(Issuer::name).collect::<Vec<_>>().join(" or ");
        let rule = "issuers are pinned in the configuration";
        let remedy = "use a token of a configured issuer, or add this one to the configuration";
        refusal("TokenIssuerUnknown", "iss", expected, shown(name), rule, remedy)
    })
}

fn checked_times(claims: &Map<String, Value>, now: i64, max_age: Option<i64>) -> Result<(i64, i64), Refusal> {
    let expires = time(claims, "exp")?.ok_or_else(|| missing("exp", "a time"))?;
    if expires <= now {
        let rule = "a token is refused from its expiry on (RFC 7519 section 4.1.4)";
        return Err(late("TokenExpired", "exp", &format!("later than {now}"), expires, rule));
    }
    let not_before = time(claims, "nbf")?;
    if let Some(at) = not_before.filter(|at| *at > now + CLOCK_SKEW) {
        let rule = "a token is refused before its `nbf` (RFC 7519 section 4.1.5)";
        return Err(late("TokenNotYetValid", "nbf", &format!("{} or earlier", now + CLOCK_SKEW), at, rule));
    }
    let issued_at = time(claims, "iat")?.ok_or_else(|| missing("iat", "a time"))?;
    if issued_at > now + CLOCK_SKEW {
        let rule = "a token is not issued in the future (RFC 7519 section 4.1.6)";
        return Err(late(
            "TokenNotYetValid",
            "iat",
            &format!("{} or earlier", now + CLOCK_SKEW),
            issued_at,
            rule,
        ));
    }
    if let Some(age) = max_age.filter(|age| issued_at < now - age) {
        let rule = format!("a token releases a key within {age} seconds of its issue");
        return Err(late("TokenTooOld", "iat", &format!("{} or later", now - age), issued_at, &rule));
    }
    Ok((issued_at, expires))
}

/// A NumericDate (RFC 7519 section 2); fractions of a second are cut off.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_i64().or_else(|| value.as_f64().and_then(whole_seconds));
    seconds.map(Some).ok_or_else(|| {
        let rule = "NumericDate (RFC 7519 section 2)";
        let remedy = "use a token of a conforming issuer";
        refusal("TokenMalformed", name, "seconds since 1970", shown(&value.to_string()), rule, remedy)
    })
}

fn whole_seconds(seconds: f64) -> Option<i64> {
    // Every date up to the year 9999 is exact in a double.
    const LIMIT: f64 = 253_402_300_799.0;
    #[allow(clippy::cast_possible_truncation, reason = "the range was checked")]
    (0.0..=LIMIT).contains(&seconds).then_some(seconds as i64)
}

fn malformed(error: jws::JwsError) -> Refusal {
    let rule = "compact JWS (RFC 7515 section 3.1)";
    let remedy = "present the token as the issuer gave it";
    refusal("TokenMalformed", "token", "a compact JWS over a JSON object", error.to_string(), rule, remedy)
}

fn unknown_key(issuer: &Issuer, kid: &str) -> Refusal {
    let rule = "tokens verify under the issuer's published keys";
    let remedy =
        "get a new token; if it is new, check that the issuer publishes its keys where the service looks";
    let expected = format!("a key id that {} publishes", issuer.name);
    refusal("TokenKeyUnknown", "kid", expected, shown(kid), rule, remedy)
}

fn bad_signature(issuer: &Issuer, kid: &str) -> Refusal {
    let rule = "RS256 (RFC 7518 section 3.3)";
    let remedy = "present the token unchanged, as its issuer gave it";
    let expected = format!("a signature by key {} of {}", shown(kid), issuer.name);
    refusal("TokenSignatureInvalid", "signature", expected, "another signature", rule, remedy)
}

fn late(code: &str, claim: &str, expected: &str, actual: i64, rule: &str) -> Refusal {
    let remedy = "get a new token; if it is new, compare the clocks of both machines";
    refusal(code, claim, expected, actual.to_string(), rule, remedy)
}

/// A claim that must be there is not.
pub fn missing(claim: &str, expected: &str) -> Refusal {
    let rule = "claims that decide must be present";
    let remedy = "use a token of an issuer that states this claim";
    refusal("ClaimMissing", claim, expected, "missing", rule, remedy)
}

/// A value from a token, short enough for a message.
pub fn shown(text: &str) -> String {
    const MAX: usize = 200;
    if text.is_empty() {
        return "empty".to_owned();
    }
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn without_slash(issuer: &str) -> &str {
    issuer.strip_suffix('/').unwrap_or(issuer)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
    use proptest::prelude::*;
    use public_api::encoding::to_base64url;
    use serde_json::json;

    use super::*;
    use crate::jwks::JwksSource;
    use crate::rsa::PublicParts;

    const NAME: &str = "https://issuer.test";
    const NOW: i64 = 1_800_000_000;

    /// An issuer and a good token of it.
    fn issuer_and_token() -> ([Issuer; 1], String) {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = PublicParts::from_pkcs1(key.public_key().as_ref()).unwrap();
        let (n, e) = (to_base64url(&public.modulus), to_base64url(&public.exponent));
        let file = tempfile::NamedTempFile::new().unwrap();
        let set = json!({"keys": [{"kid": "k", "kty": "RSA", "n": n, "e": e}]});
        std::fs::write(file.path(), set.to_string()).unwrap();
        let keys = Jwks::new(&JwksSource::File(file.path().to_owned())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(keys.key("k")).unwrap().expect("the key is published");
        let claims = json!({"iss": NAME, "iat": NOW, "exp": NOW + 60}).to_string();
        let header = json!({"alg": "RS256", "kid": "k"}).to_string();
        let message = format!("{}.{}", to_base64url(header.as_bytes()), to_base64url(claims.as_bytes()));
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        ([Issuer::new(NAME, keys)], format!("{message}.{}", to_base64url(&signature)))
    }

    fn verified(issuers: &[Issuer], token: &str) -> Result<VerifiedToken, TokenError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(verify(issuers, token, NOW, Some(600)))
    }

    /// Every single change of a good token, at every place, is refused.
    #[test]
    fn no_token_with_one_changed_character_verifies() {
        let (issuers, token) = issuer_and_token();
        assert_eq!(verified(&issuers, &token).expect("it is good").expires(), NOW + 60);
        for at in 0..token.len() {
            for to in ["A", "b", "9", "_", "-", ".", "=", " ", "é"] {
                let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
                let outcome = verified(&issuers, &changed);
                let refused =
                    matches!(outcome, Err(TokenError::Refused(_) | TokenError::KeysUnavailable { .. }));
                assert!(refused || changed == token, "{to:?} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_cut_doubled_or_spliced_token_verifies(from in 0..700_usize, length in 0..700_usize, insert in "[A-Za-z0-9_.-]{0,8}") {
            let (issuers, token) = shared();
            let from = from.min(token.len());
            let until = (from + length).min(token.len());
            let spliced = format!("{}{insert}{}", &token[..from], &token[until..]);
            prop_assert!(spliced == *token || verified(issuers, &spliced).is_err());
        }

        #[test]
        fn no_text_verifies(text: String) {
            prop_assert!(verified(&shared().0, &text).is_err());
        }

        #[test]
        fn a_date_is_read_or_refused_never_wrapped(number: f64) {
            let claims = json!({"exp": number});
            let claims = claims.as_object().unwrap();
            if let Ok(Some(seconds)) = time(claims, "exp") {
                prop_assert!((seconds as f64 - number).abs() < 1.0);
            }
        }
    }

    fn shared() -> &'static ([Issuer; 1], String) {
        static SHARED: std::sync::OnceLock<([Issuer; 1], String)> = std::sync::OnceLock::new();
        SHARED.get_or_init(issuer_and_token)
    }
}
