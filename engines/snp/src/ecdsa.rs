//! ECDSA P-384 with SHA-384 as AMD's structures carry it: little-endian numbers of 72 bytes.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey};

use crate::bytes::array;
use crate::report::SCALAR_SIZE;

/// An uncompressed point: 4, x, y.
pub(crate) type Point = [u8; 97];

/// The big-endian number of a little-endian field; nothing when it has more than 384 bits.
pub(crate) fn scalar(field: &[u8; SCALAR_SIZE]) -> Option<[u8; 48]> {
    let (low, high) = field.split_first_chunk::<48>()?;
    let mut number = *low;
    number.reverse();
    high.iter().all(|byte| *byte == 0).then_some(number)
}

/// r and s, big endian, of a signature field whose r starts at `at`.
pub(crate) fn signature(bytes: &[u8], at: usize) -> Option<[u8; 96]> {
    let r = scalar(&array(bytes, at)?)?;
    let s = scalar(&array(bytes, at + SCALAR_SIZE)?)?;
    let mut both = [0; 96];
    both.iter_mut().zip(r.into_iter().chain(s)).for_each(|(to, from)| *to = from);
    Some(both)
}

/// The key of a point; nothing when it is not on the curve.
pub(crate) fn key(point: &Point) -> Option<ParsedPublicKey> {
    ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).ok()
}

/// Whether `signature` over `message` is that of the key.
pub(crate) fn verify(key: &ParsedPublicKey, message: &[u8], signature: &[u8; 96]) -> bool {
    key.verify_sig(message, signature).is_ok()
}
