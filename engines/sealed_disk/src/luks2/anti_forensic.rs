//! The anti-forensic splitter of LUKS1 and LUKS2 with SHA-256: a key in 4000 stripes, all of which are needed.

use zeroize::Zeroizing;

use super::{KEY_BYTES, STRIPES};
use crate::crypto;

/// Fills `material` (`KEY_BYTES * STRIPES` bytes) with stripes that merge to `key`.
pub(super) fn split(key: &[u8; KEY_BYTES], material: &mut [u8]) {
    assert_eq!(material.len(), KEY_BYTES * STRIPES);
    let (random, last) = material.split_at_mut(KEY_BYTES * (STRIPES - 1));
    crypto::fill_random(random);
    let state = fold(random);
    for ((out, key), state) in last.iter_mut().zip(key).zip(state.iter()) {
        *out = key ^ state;
    }
}

/// The key that the stripes hold.
pub(super) fn merge(material: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    let (random, last) = material.split_at(KEY_BYTES * (STRIPES - 1));
    let mut key = fold(random);
    xor(&mut key, last);
    key
}

fn fold(stripes: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut state = Zeroizing::new([0; KEY_BYTES]);
    for stripe in stripes.chunks_exact(KEY_BYTES) {
        xor(&mut state, stripe);
        diffuse(&mut state);
    }
    state
}

fn xor(state: &mut [u8; KEY_BYTES], other: &[u8]) {
    state.iter_mut().zip(other).for_each(|(state, other)| *state ^= other);
}

fn diffuse(state: &mut [u8; KEY_BYTES]) {
    for (block, number) in state.chunks_exact_mut(32).zip(0u32..) {
        let hashed = crypto::sha256(&[&number.to_be_bytes(), block]);
        block.copy_from_slice(&hashed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_split_merges() {
        let key = core::array::from_fn(|i| u8::try_from(i).unwrap());
        let mut material = vec![0; KEY_BYTES * STRIPES];
        split(&key, &mut material);
        assert_eq!(*merge(&material), key);
        material[KEY_BYTES * 17] ^= 1;
        assert_ne!(*merge(&material), key);
    }
}
