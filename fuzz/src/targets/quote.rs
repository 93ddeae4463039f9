//! TPM quotes: a TPMS_ATTEST that the attestation key signed, and signatures of every form.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use vtpm::quote::verify;
use vtpm::{PcrBank, RsaPublic};

use crate::Target;
use crate::support::in_mode;

pub(crate) const TARGET: Target = Target {
    name: "vtpm_quote",
    run,
    seeds,
    words: &[b"\xffTCG\x80\x18", b"\x00\x00\x00\x01\x00\x0b\x03", b"\x00\x14\x00\x0b\x01\x00"],
    max_len: 1024,
};

const NONCE: &[u8] = b"a nonce of the verifier";

static KEY: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"));
static PUBLIC: LazyLock<RsaPublic> = LazyLock::new(|| {
    let parts: PublicKeyComponents<Vec<u8>> = KEY.public_key().into();
    RsaPublic::new(&parts.n, &parts.e)
});
static QUOTE: LazyLock<Vec<u8>> = LazyLock::new(|| attest(NONCE, &[0xFF, 0xFF, 0xFF]));

fn pcrs() -> PcrBank {
    PcrBank((0..24).map(|pcr| (pcr, [pcr; 32])).collect())
}

/// Mode 0: a structure, signed here. Else: a signature over a good quote.
fn run(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else { return };
    if *mode > 0 {
        let refused = verify(&QUOTE, bytes, &PUBLIC, NONCE, &pcrs());
        assert!(refused.is_err(), "the key signed nothing of this process");
        return;
    }
    let Ok(quote) = verify(bytes, &sign(bytes), &PUBLIC, NONCE, &pcrs()) else { return };
    assert!(!quote.pcrs().0.is_empty(), "a quote of nothing proves nothing");
    assert!(quote.pcrs().0.iter().all(|(pcr, value)| *value == [*pcr; 32]));
    assert!(bytes.windows(NONCE.len()).any(|window| window == NONCE), "the nonce is in it");
    let other = verify(bytes, &sign(bytes), &PUBLIC, b"another nonce", &pcrs());
    assert!(other.is_err(), "another's nonce");
}

fn sign(message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; KEY.public_modulus_len()];
    KEY.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("a signature");
    signature
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("short").to_be_bytes();
    [&len, bytes].concat()
}

/// TPMS_ATTEST of a quote (TPM 2.0 library, part 2, section 10.12).
fn attest(nonce: &[u8], select: &[u8; 3]) -> Vec<u8> {
    let selected: Vec<u8> =
        (0..24).filter(|pcr| select[usize::from(pcr / 8)] >> (pcr % 8) & 1 == 1).collect();
    let digest = pcrs().digest_of(&selected).expect("all are there");
    [
        b"\xffTCG\x80\x18".to_vec(),
        sized(&[0, 11, 7, 7]),
        sized(nonce),
        [&7u64.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 2, 1], &9u64.to_be_bytes()].concat(),
        [&[0, 0, 0, 1, 0, 11, 3][..], select].concat(),
        sized(&digest),
    ]
    .concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let signature = sign(b"something else");
    let wrapped = [&[0, 20, 0, 11][..], &sized(&signature)].concat();
    let quotes = [[0xFF; 3], [1, 0, 0], [0, 0, 0x80], [0; 3]].map(|select| attest(NONCE, &select));
    let mut seeds: Vec<_> = quotes.iter().map(|quote| in_mode(0, quote)).collect();
    seeds.push(in_mode(0, &attest(b"", &[1, 2, 3])));
    seeds.extend([signature, wrapped].map(|signature| in_mode(1, &signature)));
    seeds
}
