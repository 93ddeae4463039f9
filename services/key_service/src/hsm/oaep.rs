//! Taking OAEP's padding off (RFC 8017 section 7.1.2) after the token did the private operation as plain RSA.
//!
//! For tokens whose CKM_RSA_PKCS_OAEP knows SHA-1 only: the private key stays in the token, which raises the ciphertext to
//! the private exponent (CKM_RSA_X_509); the rest of the decryption needs no secret but its own output. What makes this safe is
//! that nothing but "it does not decrypt" can be learnt from a wrong block, neither from the answer nor from the time
//! (Manger, CRYPTO 2001): no branch and no index depends on the block's bytes until the one verdict on the whole is known.

use aws_lc_rs::digest::{self, SHA256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::Zeroizing;

use super::error::HsmError;

/// Bytes of SHA-256.
const HASH: usize = 32;

/// The message in an encoded block of SHA-256, MGF1 with SHA-256 and an empty label.
pub fn unpad(block: &[u8]) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    // The block's length is the key's: public.
    if block.len() < 2 * HASH + 2 {
        return Err(HsmError::Value);
    }
    let (first, rest) = block.split_at(1);
    let (masked_seed, masked_data) = rest.split_at(HASH);
    let seed = unmasked(masked_seed, masked_data);
    let data = unmasked(masked_data, &seed);
    let (label_hash, padded) = data.split_at(HASH);
    let expected = digest::digest(&SHA256, b"");
    let (start, has_separator) = message_start(padded);
    let good = first.ct_eq(&[0]) & label_hash.ct_eq(expected.as_ref()) & has_separator;
    if bool::from(good) {
        // Only now the place of the message may be used: the whole block is right, and the caller gets the message.
        return Ok(Zeroizing::new(padded.get(start as usize..).unwrap_or_default().to_vec()));
    }
    Err(HsmError::Value)
}

/// Where the message begins behind zeros and a one, and whether there is such a place. Every byte is looked at.
fn message_start(padded: &[u8]) -> (u32, Choice) {
    let (mut start, mut looking, mut broken) = (0_u32, Choice::from(1), Choice::from(0));
    for (index, byte) in (1_u32..).zip(padded) {
        let is_zero = byte.ct_eq(&0);
        let is_one = byte.ct_eq(&1);
        start.conditional_assign(&index, looking & is_one);
        broken |= looking & !is_zero & !is_one;
        looking &= !is_one;
    }
    (start, !looking & !broken)
}

/// `bytes` without the mask that MGF1 makes from `seed`.
fn unmasked(bytes: &[u8], seed: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut output = Zeroizing::new(bytes.to_vec());
    for (counter, chunk) in (0_u32..).zip(output.chunks_mut(HASH)) {
        let mut context = digest::Context::new(&SHA256);
        context.update(seed);
        context.update(&counter.to_be_bytes());
        for (byte, mask) in chunk.iter_mut().zip(context.finish().as_ref()) {
            *byte ^= mask;
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The encoding of RFC 8017 section 7.1.1, written apart from the decoding, with any first byte and separator.
    fn encoded(length: usize, message: &[u8], (first, zero, separator): (u8, u8, u8)) -> Vec<u8> {
        let seed = [7; HASH];
        let mut data = digest::digest(&SHA256, b"").as_ref().to_vec();
        data.resize(length - HASH - 2 - message.len(), zero);
        data.push(separator);
        data.extend_from_slice(message);
        let data = unmasked(&data, &seed);
        let seed = unmasked(&seed, &data);
        [&[first][..], &seed, &data].concat()
    }

    proptest! {
        #[test]
        fn every_message_comes_back(message in proptest::collection::vec(any::<u8>(), 0..=190)) {
            let block = encoded(256, &message, (0, 0, 1));
            prop_assert_eq!(block.len(), 256);
            prop_assert_eq!(&*unpad(&block).unwrap(), &message);
        }

        #[test]
        fn no_changed_block_and_no_other_bytes_are_a_message(
            at in 0..256_usize, bit in 0..8_u8, other in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            // What follows the separator is the message's own, so a message of no length has nothing that may change.
            let mut block = encoded(256, b"", (0, 0, 1));
            block[at] ^= 1 << bit;
            prop_assert!(matches!(unpad(&block), Err(HsmError::Value)));
            prop_assert!(matches!(unpad(&other), Err(HsmError::Value)));
        }
    }

    #[test]
    fn each_wrong_part_is_the_same_error() {
        for parts in [(1, 0, 1), (0, 2, 1), (0, 0, 0), (0, 0, 2), (0, 0xFF, 0xFF)] {
            assert!(matches!(unpad(&encoded(256, b"", parts)), Err(HsmError::Value)), "{parts:?}");
        }
    }
}
