//! PCR values of the SHA-256 bank.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};

/// A SHA-256 digest, which is also a PCR's value.
pub type Digest = [u8; 32];

/// SHA-256 of some bytes.
pub fn sha256(data: &[u8]) -> Digest {
    to_digest(digest(&SHA256, data).as_ref())
}

/// Copies a digest out of the cryptographic library's own type. SHA-256 always has 32 bytes.
pub(crate) fn to_digest(bytes: &[u8]) -> Digest {
    let mut value = [0; 32];
    for (to, from) in value.iter_mut().zip(bytes) {
        *to = *from;
    }
    value
}

/// `TPM2_PCR_Extend` as arithmetic: SHA-256(old value || digest).
pub fn extend(value: &mut Digest, digest: &Digest) {
    let mut context = aws_lc_rs::digest::Context::new(&SHA256);
    context.update(value);
    context.update(digest);
    *value = to_digest(context.finish().as_ref());
}

/// PCR values by number (SHA-256 bank).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrBank(pub BTreeMap<u8, Digest>);

impl PcrBank {
    /// Extends one PCR; a PCR that is not in the bank yet starts from zero.
    pub fn extend(&mut self, pcr: u8, digest: &Digest) {
        extend(self.0.entry(pcr).or_default(), digest);
    }

    /// The value of a PCR, if the bank knows it.
    pub fn value(&self, pcr: u8) -> Option<&Digest> {
        self.0.get(&pcr)
    }

    /// `pcrDigest` of a quote or a policy over these PCRs: SHA-256 of the values in ascending order of their numbers.
    /// `None` when the bank lacks one of them.
    pub fn digest_of(&self, selection: &[u8]) -> Option<Digest> {
        let mut sorted = selection.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut context = aws_lc_rs::digest::Context::new(&SHA256);
        for pcr in sorted {
            context.update(self.value(pcr)?);
        }
        Some(to_digest(context.finish().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extend_is_a_hash_chain() {
        let mut bank = PcrBank::default();
        bank.extend(4, &sha256(b"a"));
        let expected = sha256(&[[0; 32], sha256(b"a")].concat());
        assert_eq!(bank.value(4), Some(&expected));
        assert_eq!(bank.digest_of(&[4]), Some(sha256(&expected)));
        assert_eq!(bank.digest_of(&[4, 5]), None);
    }
}
