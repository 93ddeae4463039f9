//! Using a key whose secret lies in the token. What is permitted was decided before, in [`super::operate`]; the token's work
//! blocks a thread of the runtime's blocking pool for a limited time, and no other.

use public_api::key_operations::{KeyOperationParameters, KeyOperationResult};

use super::AppError;
use super::custody::TokenKey;
use super::operate::{Algorithm, Operation};
use crate::crypto::sign::SignatureAlgorithm;
use crate::hsm::HsmError;

impl TokenKey {
    /// `decrypt`, `unwrapkey`, and the symmetric `encrypt` and `wrapkey`.
    pub(super) async fn cipher(
        self,
        algorithm: Algorithm,
        operation: Operation,
        parameters: KeyOperationParameters,
    ) -> Result<KeyOperationResult, AppError> {
        let work = move || self.ciphered(algorithm, operation, parameters);
        tokio::task::spawn_blocking(work).await?.map_err(of_token)
    }

    fn ciphered(
        &self,
        algorithm: Algorithm,
        operation: Operation,
        parameters: KeyOperationParameters,
    ) -> Result<KeyOperationResult, HsmError> {
        let (hsm, id) = (&self.hsm, self.id);
        let KeyOperationParameters { value, iv, aad, tag, .. } = parameters;
        let iv_bytes = iv.clone().unwrap_or_default();
        let aad_bytes = aad.clone().unwrap_or_default();
        let plain = |value: Vec<u8>| KeyOperationResult { value, ..KeyOperationResult::default() };
        Ok(match (algorithm, operation.encrypts()) {
            (Algorithm::Rsa(padding), _) => plain(hsm.decrypt(id, padding, value)?.to_vec()),
            (Algorithm::Gcm(_), true) => {
                let output = hsm.gcm_encrypt(id, value, aad_bytes)?;
                KeyOperationResult { iv: Some(output.iv), tag: Some(output.tag), aad, ..plain(output.value) }
            }
            (Algorithm::Gcm(_), false) => {
                let tag = tag.unwrap_or_default();
                plain(hsm.gcm_decrypt(id, value, (iv_bytes, tag, aad_bytes))?.to_vec())
            }
            (Algorithm::Cbc(_, padding), true) => {
                KeyOperationResult { iv, ..plain(hsm.cbc_encrypt(id, padding, value, iv_bytes)?) }
            }
            (Algorithm::Cbc(_, padding), false) => {
                plain(hsm.cbc_decrypt(id, padding, value, iv_bytes)?.to_vec())
            }
            (Algorithm::KeyWrap(_), true) => plain(hsm.wrap(id, value)?),
            (Algorithm::KeyWrap(_), false) => plain(hsm.unwrap(id, value)?.to_vec()),
        })
    }

    /// `sign`
    pub(super) async fn sign(
        self,
        algorithm: SignatureAlgorithm,
        digest: Vec<u8>,
    ) -> Result<Vec<u8>, AppError> {
        let work = move || self.hsm.sign(self.id, algorithm, digest);
        tokio::task::spawn_blocking(work).await?.map_err(of_token)
    }
}

/// A value that does not fit is the caller's, as with a key that is sealed here.
fn of_token(error: HsmError) -> AppError {
    match error {
        HsmError::Value => super::operate::operation_error(crate::crypto::error::CryptoError::Value),
        other => AppError::Hsm(other),
    }
}
