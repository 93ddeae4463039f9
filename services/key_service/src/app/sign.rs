//! `sign` and `verify`: over a digest that the caller made. RSA and EC keys only; HS256 and its like are names that Key
//! Vault has without a key that they work with.

use public_api::key_operations::{
    KeyOperationResult, KeySignParameters, KeyVerifyParameters, KeyVerifyResult,
};

use super::keys::KeyRef;
use super::operate::{Operation, operation_error};
use super::{AppError, AppState, quoted};
use crate::crypto::kind::PublicKey;
use crate::crypto::sign::{self, SignatureAlgorithm};
use crate::token::caller::Caller;

impl AppState {
    /// `POST .../sign`: on record before the answer.
    pub async fn sign(
        &self,
        caller: &Caller,
        key: &KeyRef,
        parameters: KeySignParameters,
    ) -> Result<KeyOperationResult, AppError> {
        let record = self.usable(caller, key, Operation::Sign).await?;
        let KeySignParameters { alg, value } = parameters;
        let algorithm = algorithm(&alg, &record.public)?;
        digest("value", &value, algorithm)?;
        let kid = self.kid(&record);
        let value = match self.in_token(&record)? {
            Some(key) => key.sign(algorithm, value).await?,
            None => {
                let private = self.opened_key(&record).await?;
                sign::sign(&private, algorithm, &value).map_err(operation_error)?
            }
        };
        self.record_use(caller, &kid, Operation::Sign, &alg).await?;
        Ok(KeyOperationResult { kid, value, ..KeyOperationResult::default() })
    }

    /// `POST .../verify`: needs no secret, so it leaves no entry in the log.
    pub async fn verify(
        &self,
        caller: &Caller,
        key: &KeyRef,
        parameters: KeyVerifyParameters,
    ) -> Result<KeyVerifyResult, AppError> {
        let record = self.usable(caller, key, Operation::Verify).await?;
        let algorithm = algorithm(&parameters.alg, &record.public)?;
        digest("digest", &parameters.digest, algorithm)?;
        let value = sign::verify(&record.public, algorithm, &parameters.digest, &parameters.value);
        Ok(KeyVerifyResult { value: value.map_err(operation_error)? })
    }
}

fn algorithm(name: &str, key: &PublicKey) -> Result<SignatureAlgorithm, AppError> {
    SignatureAlgorithm::from_name(name).filter(|algorithm| algorithm.fits(key)).ok_or_else(|| {
        let (name, names) = (quoted::text(name), SignatureAlgorithm::NAMES);
        AppError::bad("alg", format!("{name} is no algorithm of this key; there are {names}"))
    })
}

fn digest(target: &str, digest: &[u8], algorithm: SignatureAlgorithm) -> Result<(), AppError> {
    let wanted = algorithm.digest_len();
    if digest.len() == wanted {
        return Ok(());
    }
    Err(AppError::bad(target, format!("expected a digest of {wanted} bytes, found {}", digest.len())))
}
