//! Nonces that prove by themselves who issued them and until when they hold.
//!
//! A nonce is 6 bytes of expiry time, 10 random bytes and 16 bytes of HMAC-SHA-256 over both under the service's nonce
//! key, in hex. So handing one out stores nothing and a flood of requests for nonces fills no disk; a nonce that was
//! presented is stored until it expires; and one that expired is still known as ours, and refused, for ever after.

use std::path::Path;

use aws_lc_rs::hmac;
use public_api::Denial;
use public_api::attestation::NonceResponse;

use super::secret_file;

/// How long a nonce holds, in seconds.
pub const LIFETIME: i64 = 300;
const EXPIRY: usize = 6;
const RANDOM: usize = 10;
const TAG: usize = 16;
const KEY_FILE: &str = "nonce.key";

/// Issues nonces and recognises its own.
pub struct Nonces {
    key: hmac::Key,
}

/// A nonce of this service that has not expired. Whether it was used before is the store's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNonce {
    /// The nonce in lower-case hex.
    pub text: String,
    /// Unix seconds.
    pub expires_on: i64,
}

/// Where a request's nonce comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Issued here, and still in time.
    Own(OwnNonce),
    /// The client's own.
    Client,
}

impl Nonces {
    /// The nonces of this installation; its key is made at the first start.
    pub fn open(directory: &Path) -> std::io::Result<Self> {
        let path = directory.join(KEY_FILE);
        if secret_file::read(&path)?.is_none() {
            let mut key = zeroize::Zeroizing::new([0; 32]);
            aws_lc_rs::rand::fill(&mut *key).map_err(|_| std::io::Error::other("no randomness"))?;
            secret_file::write_new(&path, &*key)?;
        }
        let key = secret_file::read(&path)?.unwrap_or_default();
        match key.len() {
            32 => Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key) }),
            length => {
                Err(std::io::Error::other(format!("{} has {length} bytes, expected 32", path.display())))
            }
        }
    }

    /// A new nonce.
    pub fn issue(&self, now: i64) -> NonceResponse {
        let expires_on = now + LIFETIME;
        let mut bytes = expires_on.to_be_bytes()[8 - EXPIRY..].to_vec();
        let mut random = [0; RANDOM];
        aws_lc_rs::rand::fill(&mut random).expect("the system's random generator works after start-up");
        bytes.extend_from_slice(&random);
        let tag = hmac::sign(&self.key, &bytes);
        bytes.extend_from_slice(&tag.as_ref()[..TAG]);
        NonceResponse { nonce: hex::encode(bytes), expires_on }
    }

    /// Tells an own nonce from a client's, and refuses an own one that has expired.
    pub fn origin(&self, text: &str, now: i64) -> Result<Origin, Box<Denial>> {
        let Some(expires_on) = self.expiry_of_own(text) else { return Ok(Origin::Client) };
        if expires_on < now {
            return Err(Box::new(Denial::new(
                "NonceExpired",
                "nonce",
                format!("presented at most {LIFETIME} seconds after it was issued"),
                format!("expired {} seconds ago", now - expires_on),
                "a nonce of POST /nonces is accepted once and in time",
                "get a new nonce and a new report that is bound to it",
            )));
        }
        Ok(Origin::Own(OwnNonce { text: text.to_ascii_lowercase(), expires_on }))
    }

    fn expiry_of_own(&self, text: &str) -> Option<i64> {
        let bytes = hex::decode(text).ok()?;
        if bytes.len() != EXPIRY + RANDOM + TAG {
            return None;
        }
        let (signed, tag) = bytes.split_at(EXPIRY + RANDOM);
        let expected = hmac::sign(&self.key, signed);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..TAG], tag).ok()?;
        Some(signed[..EXPIRY].iter().fold(0, |expiry, byte| expiry << 8 | i64::from(*byte)))
    }
}

/// The refusal of a nonce that was presented before.
pub fn replayed() -> Denial {
    Denial::new(
        "NonceReplayed",
        "nonce",
        "a nonce that was not presented before",
        "a nonce that was presented before",
        "a nonce of POST /nonces is accepted once and in time",
        "get a new nonce and a new report that is bound to it",
    )
}

/// The refusal of an own nonce that the report is not bound to.
pub fn unbound(nonce: &OwnNonce, found: Option<&str>) -> Denial {
    Denial::new(
        "NonceNotBound",
        "x-ms-runtime.nonce",
        nonce.text.as_str(),
        found.unwrap_or("missing"),
        "a nonce of POST /nonces stands in the runtime data, so that REPORT_DATA binds the report to it",
        "put the nonce into the runtime data's top-level member `nonce` before asking for the report",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonces() -> (tempfile::TempDir, Nonces) {
        let directory = tempfile::tempdir().expect("a directory");
        let nonces = Nonces::open(directory.path()).expect("opened");
        (directory, nonces)
    }

    #[test]
    fn an_own_nonce_is_known_until_it_expires_also_after_a_restart() {
        let (directory, nonces) = nonces();
        let nonce = nonces.issue(1000);
        assert_eq!((nonce.expires_on, nonce.nonce.len()), (1300, 64));
        let again = Nonces::open(directory.path()).expect("opened again");
        for at in [1000, 1300] {
            let own = OwnNonce { text: nonce.nonce.clone(), expires_on: 1300 };
            assert_eq!(again.origin(&nonce.nonce, at), Ok(Origin::Own(own)));
        }
        let denial = again.origin(&nonce.nonce, 1301).expect_err("expired");
        assert_eq!((denial.code.as_str(), denial.actual.as_str()), ("NonceExpired", "expired 1 seconds ago"));
        assert!(again.origin(&nonce.nonce.to_uppercase(), 9_999_999).is_err(), "known for ever");
    }

    #[test]
    fn an_altered_or_foreign_nonce_is_the_clients_own() {
        let (_directory, nonces) = nonces();
        let (_other_directory, others) = self::nonces();
        let nonce = nonces.issue(1000).nonce;
        for index in 0..nonce.len() {
            let mut altered = nonce.clone().into_bytes();
            altered[index] = if altered[index] == b'0' { b'1' } else { b'0' };
            let altered = String::from_utf8(altered).expect("still text");
            assert_eq!(nonces.origin(&altered, 1000), Ok(Origin::Client), "{index}");
        }
        assert_eq!(others.origin(&nonce, 1000), Ok(Origin::Client));
        assert_eq!(nonces.origin("", 1000), Ok(Origin::Client));
        assert_eq!(nonces.origin("12345", 1000), Ok(Origin::Client));
    }

    #[test]
    fn no_two_nonces_are_equal() {
        let (_directory, nonces) = nonces();
        let all: std::collections::HashSet<_> = (0..1000).map(|_| nonces.issue(1).nonce).collect();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn a_damaged_key_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(KEY_FILE), b"short").expect("written");
        assert!(Nonces::open(directory.path()).is_err());
    }
}
