//! A key that can be used only while PCRs have the values that they had when it was made: template, policy, the session
//! that satisfies it, its certification by the attestation key, and decryption with it.
//!
//! This is the key that a guest hands to the `AzureGuest` attestation: what the service seals to it can be read in this
//! boot of this TPM and nowhere else.

use super::build::{Command, pcr_selection};
use super::response::{Response, end, field};
use super::{CommandError, alg, handle};
use crate::bytes::Cursor;
use crate::pcr::{Digest, PcrBank, sha256};

const START_AUTH_SESSION: u32 = 0x176;
const POLICY_PCR: u32 = 0x17F;
const CERTIFY: u32 = 0x148;
const RSA_DECRYPT: u32 = 0x159;
/// TPM_SE_POLICY.
const SESSION_POLICY: u8 = 1;

/// How an RSA ciphertext was padded (TPMT_RSA_DECRYPT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaPadding {
    /// RSAES-PKCS1-v1_5.
    Pkcs1,
    /// RSAES-OAEP with SHA-256, an empty label, and MGF1 with SHA-256.
    OaepSha256,
}

/// Template of the key: RSA-2048, `fixedTPM | fixedParent | sensitiveDataOrigin | noDA | decrypt`, no password, usable
/// under the policy alone.
pub fn ephemeral_template(policy: &Digest) -> Vec<u8> {
    let mut template = vec![0x00, 0x01, 0x00, 0x0B, 0x00, 0x02, 0x04, 0x32, 0x00, 0x20];
    template.extend_from_slice(policy);
    // symmetric null, scheme null, 2048 bits, default exponent, unique: empty
    template.extend_from_slice(&[0x00, 0x10, 0x00, 0x10, 0x08, 0x00, 0, 0, 0, 0, 0, 0]);
    template
}

/// The policy that only `PolicyPCR` over these PCRs of the SHA-256 bank satisfies (TPM 2.0 library, part 3, 23.7).
/// `None` when a value is missing.
pub fn pcr_policy(pcrs: &[u8], values: &PcrBank) -> Option<Digest> {
    let mut sorted = pcrs.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let digest = values.digest_of(&sorted)?;
    let parts =
        [&[0; 32][..], &POLICY_PCR.to_be_bytes(), &pcr_selection(&sorted), digest.as_slice()].concat();
    Some(sha256(&parts))
}

/// `TPM2_StartAuthSession` of a policy session that is neither salted nor bound.
pub fn start_policy_session(nonce: &[u8; 32]) -> Vec<u8> {
    Command::new(START_AUTH_SESSION)
        .handle(handle::NULL)
        .handle(handle::NULL)
        .tpm2b(nonce)
        .tpm2b(&[])
        .u8(SESSION_POLICY)
        .u16(alg::NULL)
        .u16(alg::SHA256)
        .finish()
}

/// Answer to [`start_policy_session`]: the session.
///
/// # Errors
/// [`CommandError`].
pub fn started_session(bytes: &[u8]) -> Result<u32, CommandError> {
    let mut response = Response::parse(bytes)?;
    let session = response.handle()?;
    let mut parameters = response.parameters()?;
    field(parameters.tpm2b(), "session nonce")?;
    end(&parameters, "session nonce")?;
    Ok(session)
}

/// `TPM2_PolicyPCR` over the PCRs' present values.
pub fn policy_pcr(session: u32, pcrs: &[u8]) -> Vec<u8> {
    Command::new(POLICY_PCR).handle(session).tpm2b(&[]).bytes(&pcr_selection(pcrs)).finish()
}

/// `TPM2_Certify` of an object by a key that has a scheme of its own, both without passwords. The answer is read as that
/// of a quote.
pub fn certify(object: u32, key: u32, qualifying: &[u8]) -> Vec<u8> {
    Command::new(CERTIFY)
        .handle(object)
        .password(&[])
        .handle(key)
        .password(&[])
        .tpm2b(qualifying)
        .u16(alg::NULL)
        .finish()
}

/// `TPM2_RSA_Decrypt` authorised by a policy session, which ends with it.
pub fn rsa_decrypt(key: u32, session: u32, ciphertext: &[u8], padding: RsaPadding) -> Vec<u8> {
    let command = Command::new(RSA_DECRYPT).handle(key).policy(session).tpm2b(ciphertext);
    let command = match padding {
        RsaPadding::Pkcs1 => command.u16(alg::RSAES),
        RsaPadding::OaepSha256 => command.u16(alg::OAEP).u16(alg::SHA256),
    };
    command.tpm2b(&[]).finish()
}

/// Answer to `RSA_Decrypt`: the message.
///
/// # Errors
/// [`CommandError`].
pub fn decrypted(bytes: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, CommandError> {
    let mut parameters = Response::parse(bytes)?.parameters()?;
    let message = field(parameters.tpm2b(), "decrypted message")?.to_vec().into();
    end(&parameters, "decrypted message")?;
    Ok(message)
}

/// The bare RSASSA signature in a TPMT_SIGNATURE with SHA-256.
///
/// # Errors
/// [`CommandError`] for another scheme or hash.
pub fn rsassa_signature(signature: &[u8]) -> Result<Vec<u8>, CommandError> {
    let mut cursor = Cursor::new(signature);
    if (cursor.be16(), cursor.be16()) != (Some(alg::RSASSA), Some(alg::SHA256)) {
        return Err(CommandError::Unexpected("signature scheme"));
    }
    let bare = field(cursor.tpm2b(), "signature")?.to_vec();
    end(&cursor, "signature")?;
    Ok(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_depends_on_every_value_and_not_on_the_order() {
        let mut values = PcrBank::default();
        values.extend(4, &[1; 32]);
        values.extend(7, &[2; 32]);
        let policy = pcr_policy(&[4, 7], &values).unwrap();
        assert_eq!(pcr_policy(&[7, 4, 7], &values), Some(policy));
        assert_ne!(pcr_policy(&[4], &values), Some(policy));
        assert_eq!(pcr_policy(&[4, 8], &values), None, "PCR 8 is not known");
        values.extend(7, &[3; 32]);
        assert_ne!(pcr_policy(&[4, 7], &values), Some(policy));
        assert!(ephemeral_template(&policy).windows(32).any(|window| window == policy));
    }

    #[test]
    fn only_rsassa_with_sha_256_is_a_signature() {
        let good = [0x00, 0x14, 0x00, 0x0B, 0x00, 0x02, 0xAA, 0xBB];
        assert_eq!(rsassa_signature(&good), Ok(vec![0xAA, 0xBB]));
        for at in [1, 3, 5] {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(rsassa_signature(&bad).is_err(), "byte {at}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..60), tag in 0x8001u16..=0x8002) {
            let mut bytes = tag.to_be_bytes().to_vec();
            bytes.extend_from_slice(&u32::try_from(10 + body.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&body);
            let _ = (started_session(&bytes), decrypted(&bytes), rsassa_signature(&body));
        }
    }
}
